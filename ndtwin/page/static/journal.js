// What happened lately, newest first.
export default {
  template: `
    <div class="journal">
      <div v-if="!data.entries.length" class="empty">nothing has happened yet</div>
      <div v-for="(e, i) in data.entries" :key="e.at_ms + e.text" :class="['entry', e.level, e.kind]">
        <time>{{ clock(e.at_ms) }}</time><span>{{ e.text }}</span></div>
    </div>`,
  props: { data: { type: Object, required: true } },
  methods: {
    clock(ms) { return new Date(ms).toLocaleTimeString([], { hour12: false }); },
  },
};
