// Paths, measured beside predicted. Only the rows in sight are in the document, so thousands cost no more than twenty.
const ROW = 25;
const COLUMNS = [
  { key: "path", label: "path", unit: "", cls: "name" },
  { key: "traffic", label: "traffic", unit: "Mbit/s", cls: "num c-traffic", title: "by the flow records" },
  { key: "measured", label: "measured", unit: "ms", cls: "num measured", title: "mean delay of this window" },
  { key: "expected", label: "predicted", unit: "ms", cls: "num expected", title: "what the measurement should read by the twin" },
  { key: "low", label: "interval", unit: "ms", cls: "num c-interval", title: "where nine of ten measurements should lie" },
  { key: "residual", label: "residual", unit: "%", cls: "bar", title: "measured against predicted; the bar: how far beyond the interval (its middle third)" },
];
export default {
  template: `
    <div class="paths">
      <div class="tools">
        <input v-model="query" @input="searched" type="search" placeholder="search: WA, WA->NY" aria-label="search paths"/>
        <button v-if="data.filter" class="chip" @click="$emit('clear')" title="show all paths">{{ data.filter }} ✕</button>
        <span class="count" data-role="count">{{ rows.length }} of {{ data.total }} paths<template v-if="data.cut"> (worst {{ data.rows.length }})</template></span>
      </div>
      <div class="head row" role="row">
        <button v-for="c in columns" :key="c.key" :class="[c.cls, {by: sort === c.key}]" :title="c.title" @click="order(c.key)">
          {{ c.label }}<small v-if="c.unit"> {{ c.unit }}</small><i>{{ sort === c.key ? (down ? '▾' : '▴') : '' }}</i>
        </button>
      </div>
      <div class="body" ref="body" @scroll="scrolled" tabindex="0" role="grid" aria-label="paths" @keydown="key">
        <div :style="{height: rows.length * 25 + 'px', position: 'relative'}">
          <div v-for="(r, i) in seen" :key="r.path" class="row" role="row" :data-path="r.path"
               :class="{chosen: r.path === data.chosen, alerted: r.alerted}" :style="{top: (first + i) * 25 + 'px'}"
               @click="$emit('pick', {path: r.path})">
            <span class="name">{{ r.source }}<s>→</s>{{ r.destination }}<u :title="r.method || 'not measured in this window'">{{ tag(r.method) }}</u></span>
            <span class="num c-traffic">{{ fixed(r.traffic, 3) }}</span>
            <span class="num measured">{{ fixed(r.measured, 3) }}</span>
            <span class="num expected">{{ fixed(r.expected, 3) }}</span>
            <span class="num c-interval">{{ r.low === null ? '–' : fixed(r.low, 2) + ' … ' + fixed(r.high, 2) }}</span>
            <span class="bar"><i class="axis"><b v-if="r.score !== null" :class="level(r.score)" :style="bar(r.score)"></b></i>
              <em :class="r.score === null ? '' : level(r.score)">{{ percent(r.residual) }}</em></span>
          </div>
        </div>
        <div v-if="!data.total" class="empty">{{ data.waiting }}</div>
        <div v-else-if="!rows.length" class="empty">no path matches “{{ query || data.filter }}”</div>
      </div>
    </div>`,
  props: { data: { type: Object, required: true } },
  data() {
    return { query: "", sort: "residual", down: true, first: 0, fit: 30, columns: COLUMNS };
  },
  mounted() {
    this.watcher = new ResizeObserver(() => this.scrolled());
    this.watcher.observe(this.$refs.body);
  },
  beforeUnmount() { this.watcher.disconnect(); },
  computed: {
    rows() {
      const q = this.query.trim().toLowerCase().replace("→", "->");
      const rows = q ? this.data.rows.filter((r) => r.path.toLowerCase().includes(q)) : this.data.rows.slice();
      const value = (r) => {
        if (this.sort === "residual") return r.score === null ? -1 : Math.abs(r.score);
        return r[this.sort] === null ? -1 : r[this.sort];
      };
      const sign = this.down ? -1 : 1;
      return rows.sort((a, b) => {
        const x = value(a), y = value(b);
        return x === y ? (a.path < b.path ? -1 : 1) : sign * (x < y ? -1 : 1);
      });
    },
    seen() { return this.rows.slice(this.first, this.first + this.fit); },
  },
  methods: {
    scrolled() {
      const body = this.$refs.body;
      this.first = Math.max(0, Math.floor(body.scrollTop / ROW) - 4);
      this.fit = Math.ceil(body.clientHeight / ROW) + 9;
    },
    searched() {
      this.$refs.body.scrollTop = 0;
      clearTimeout(this.later);
      this.later = setTimeout(() => this.$emit("search", { query: this.query }), 300);
    },
    order(key) {
      this.down = this.sort === key ? !this.down : key !== "path";
      this.sort = key;
    },
    key(event) {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step || !this.rows.length) return;
      event.preventDefault();
      const at = this.rows.findIndex((r) => r.path === this.data.chosen);
      const next = Math.max(0, Math.min(this.rows.length - 1, at + step));
      this.$emit("pick", { path: this.rows[next].path });
      const body = this.$refs.body, top = next * ROW;
      if (top < body.scrollTop) body.scrollTop = top;
      if (top + ROW > body.scrollTop + body.clientHeight) body.scrollTop = top + ROW - body.clientHeight;
    },
    fixed(v, digits) { return v === null ? "–" : v.toFixed(v >= 100 ? 1 : v >= 10 ? Math.min(2, digits) : digits); },
    percent(v) {
      if (v === null) return "–";
      const p = 100 * (Math.exp(v) - 1);
      return (p > 0 ? "+" : "") + p.toFixed(Math.abs(p) >= 100 ? 0 : 1);
    },
    tag(method) {
      return {
        "ipfix-on-path": "flow", rttmon: "probe", "rttmon-round-trip": "probe rtt", "disman-ping": "ping",
        "juniper-rpm": "rpm", stamp: "stamp", "stamp-round-trip": "stamp rtt", "openconfig-probes": "oc probe",
      }[method] || "";
    },
    level(score) { const s = Math.abs(score); return s <= 1 ? "in" : s <= 2 ? "near" : "out"; },
    bar(score) {
      const width = Math.min(50, (Math.abs(score) / 3) * 50);
      return score >= 0 ? { left: "50%", width: width + "%" } : { right: "50%", width: width + "%" };
    },
  },
};
