"""A row times a small table of weights, of sizes known when compiled: where the kernels spend their time.

numba would make loops over memory of it. Here the sums stay in vector registers, and enough of them are under
way at once that none waits for the one before: 20 ns in place of 30 for 16 × 48 on an EPYC of 2021.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

LANES = 8  # float32 in a vector of AVX2; elsewhere LLVM takes two of four
BITS = 32  # of a word
CHAINS = 8  # sums under way at once: two multiply-adds a cycle, each done after four
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_WORD = ir.IntType(BITS)
_WORDS = ir.VectorType(_WORD, LANES)
_FAST = ("fast",)  # as fastmath of the kernels


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def product(context: Any, out: Any, start: Any, x: Any, w: Any, rows: Any, columns: Any) -> Any:
    """out [columns] = start [columns] + x [rows] · w [rows, columns], all contiguous float32.

    ``out`` may be ``start``. ``rows`` and ``columns`` are written as numbers or global constants; columns
    come in multiples of LANES.
    """
    return _known(partial(_generate, relu=False), out, start, x, w, rows, columns)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def relu_product(context: Any, out: Any, start: Any, x: Any, w: Any, rows: Any, columns: Any) -> Any:
    """out = max(start + x · w, 0), as :func:`product`; bit j of what is returned: whether out[j] > 0.

    To read ``out`` for it would take longer than the product: it was just written in other pieces.
    """
    return _known(partial(_generate, relu=True), out, start, x, w, rows, columns)


def _known(generate: Any, *arguments: Any) -> Any:
    """How numba makes the code, once it knows the sizes."""
    rows, columns = arguments[4:]
    if not (isinstance(rows, types.IntegerLiteral) and isinstance(columns, types.IntegerLiteral)):
        return None  # numba asks again, with literals
    if columns.literal_value % LANES:
        raise TypingError(f"{columns.literal_value} columns: give a multiple of {LANES}")
    if columns.literal_value > BITS and generate.keywords["relu"]:
        raise TypingError(f"{columns.literal_value} columns: give at most {BITS}")
    return types.int32(*arguments), generate


def _generate(context: Any, builder: Any, signature: Any, arguments: Any, *, relu: bool) -> Any:
    rows, columns = (size.literal_value for size in signature.args[4:])
    out, start, x, w = (
        context.make_array(kind)(context, builder, value).data
        for kind, value in zip(signature.args[:4], arguments[:4], strict=True)
    )
    blocks = range(0, columns, LANES)
    split = max(1, min(rows, CHAINS // len(blocks)))  # several sums of one column, added at the end
    sums = {(block, 0): _load(builder, start, block) for block in blocks}
    for row in range(rows):
        value = _everywhere(builder, builder.load(_at(builder, x, row)))
        for block in blocks:
            term = builder.fmul(value, _load(builder, w, row * columns + block), flags=_FAST)
            before = sums.get((block, row % split))
            sums[block, row % split] = builder.fadd(before, term, flags=_FAST) if before else term
    bits = ir.Constant(_WORDS, [0] * LANES)
    for block in blocks:
        total = sums[block, 0]
        for part in range(1, split):
            total = builder.fadd(total, sums[block, part], flags=_FAST)
        if relu:
            zero = ir.Constant(_VECTOR, [0.0] * LANES)
            above = builder.fcmp_ordered(">", total, zero)
            total = builder.select(above, total, zero)
            mine = ir.Constant(_WORDS, [_signed(1 << block + lane) for lane in range(LANES)])
            bits = builder.or_(bits, builder.select(above, mine, ir.Constant(_WORDS, [0] * LANES)))
        builder.store(total, _vector_at(builder, out, block), align=4)
    return _any(builder, bits)


def _any(builder: Any, words: Any) -> Any:
    """All words of a vector, or-ed. (Masks put together as i1 would make LLVM take vectors of 16, which slow
    down all others on processors that close a port for them.)"""
    width = LANES
    while width > 1:
        width //= 2
        low, high = (
            builder.shuffle_vector(words, words, ir.Constant(ir.VectorType(_WORD, width), list(lanes)))
            for lanes in (range(width), range(width, 2 * width))
        )
        words = builder.or_(low, high)
    return builder.extract_element(words, ir.Constant(_WORD, 0))


def _signed(word: int) -> int:
    return word - (1 << BITS) if word >> BITS - 1 else word


def _at(builder: Any, data: Any, index: int) -> Any:
    return builder.gep(data, [ir.Constant(ir.IntType(64), index)])


def _vector_at(builder: Any, data: Any, index: int) -> Any:
    return builder.bitcast(_at(builder, data, index), _VECTOR.as_pointer())


def _load(builder: Any, data: Any, index: int) -> Any:
    return builder.load(_vector_at(builder, data, index), align=4)


def _everywhere(builder: Any, value: Any) -> Any:
    """A vector of the same value."""
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, nothing, lanes)
