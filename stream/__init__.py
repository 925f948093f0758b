"""Topics, codec, event-time windows, processors, the Faust app, archive, replay and sinks."""
