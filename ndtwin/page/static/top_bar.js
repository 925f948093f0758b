// Name, network, window clock, the figures of the loop, and every component's health.
const MEANING = {
  "paths measured": "paths of which a mean delay was measured in this window",
  "paths predicted": "paths of which the twin predicts the mean delay in this window",
  "median error": "|measured ÷ predicted − 1| of this window's paths, the median",
  "busiest link": "highest load ÷ capacity of all links in this window",
  "prediction lag": "from a window's state to its prediction, the median of the last windows",
};
export default {
  template: `
    <header class="top">
      <div class="brand"><svg viewBox="0 0 32 20" aria-hidden="true"><circle cx="11" cy="10" r="8"/><circle cx="21" cy="10" r="8" class="twin"/></svg><b>ndtwin</b></div>
      <select v-if="data.networks.length > 1" :value="data.network" @change="$emit('network', {network: $event.target.value})" aria-label="network">
        <option v-for="n in data.networks" :key="n">{{ n }}</option></select>
      <span v-else class="network">{{ data.network || 'no network yet' }}</span>
      <div class="window" v-if="data.window">
        <span class="ring" :style="{'--f': fraction}"></span>
        <div><b data-role="window">{{ clock(data.window.start_ms) }} – {{ clock(data.window.end_ms) }}</b>
          <small>window <span data-role="version">{{ data.window.version }}</span> · closed {{ ago }} s ago</small></div>
      </div>
      <dl class="figures">
        <div v-for="f in data.figures" :key="f.label" :class="f.level" :title="meaning[f.label]"><dd>{{ f.value }}<small v-if="f.unit"> {{ f.unit }}</small></dd><dt>{{ f.label }}</dt></div>
      </dl>
      <div class="health">
        <div class="components">
          <span v-for="c in data.components" :key="c.name" :class="['component', c.state]" :data-component="c.name" :data-state="c.state"
                :title="c.name + ' ' + c.state + (c.detail ? ': ' + c.detail : '') + (c.restarts ? ' · restarted ' + c.restarts + '×' : '')">
            <i></i>{{ c.name }}<sup v-if="c.restarts">{{ c.restarts }}</sup></span>
        </div>
        <span class="verdict" :class="data.level" data-role="verdict">{{ data.verdict }}</span>
      </div>
    </header>`,
  props: { data: { type: Object, required: true } },
  data() { return { now: Date.now(), meaning: MEANING }; },
  mounted() { this.clockwork = setInterval(() => (this.now = Date.now()), 1000); },
  beforeUnmount() { clearInterval(this.clockwork); },
  computed: {
    ago() { return Math.max(0, Math.round((this.now - this.data.window.end_ms) / 1000)); },
    fraction() {
      const length = this.data.window.end_ms - this.data.window.start_ms;
      return Math.min(1, Math.max(0, (this.now - this.data.window.end_ms) / length));
    },
  },
  methods: {
    clock(ms) { return new Date(ms).toLocaleTimeString([], { hour12: false }); },
  },
};
