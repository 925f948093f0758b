"""The network digital twin: vocabulary, graph state, simulator, delay models, prediction and what-if."""
