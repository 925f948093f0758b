// Alerts, firing first: what, since when, who is suspected and why. A click on a suspect or a path selects it.
export default {
  template: `
    <div class="alerts">
      <div v-if="!data.alerts.length" class="calm"><b>No alerts</b><span>{{ data.calm }}</span></div>
      <article v-for="a in data.alerts" :key="a.fingerprint" :class="[a.state, a.severity]" :data-alert="a.fingerprint" :data-state="a.state">
        <header><span class="state">{{ a.state }}</span><span class="kind">{{ a.kind }}</span>
          <time :title="'since ' + clock(a.starts_at_ms)">{{ a.state === 'resolved' ? 'at ' + clock(a.ends_at_ms || a.updated_at_ms) : age(a.starts_at_ms) }}</time></header>
        <p>{{ a.summary }}</p>
        <ol v-if="a.state !== 'resolved' || open === a.fingerprint" class="suspects">
          <li v-for="s in a.suspects" :key="s.target + s.hypothesis" :data-suspect="s.target" @click="$emit('pick', pick(s))">
            <div class="who"><b>{{ s.target }}</b><span>{{ s.hypothesis.replaceAll('-', ' ') }}</span><em>{{ (100 * s.probability).toFixed(0) }} %</em></div>
            <i class="meter"><i :style="{width: 100 * s.probability + '%'}"></i></i>
            <small v-if="s.evidence">{{ s.evidence }}</small>
          </li>
        </ol>
        <footer>
          <span v-for="t in a.life" class="step" :class="t.state">{{ t.state }} {{ clock(t.at_ms) }}</span>
          <span class="worst" v-if="a.paths.length && a.state !== 'resolved'">
            <button v-for="p in a.paths.slice(0, 4)" @click="$emit('pick', {path: p})">{{ p.replace('->', '→') }}</button>
            <span v-if="a.paths.length > 4">+{{ a.paths.length - 4 }} paths</span></span>
        </footer>
      </article>
    </div>`,
  props: { data: { type: Object, required: true } },
  data() { return { now: Date.now(), open: null }; },
  mounted() { this.clockwork = setInterval(() => (this.now = Date.now()), 1000); },
  beforeUnmount() { clearInterval(this.clockwork); },
  methods: {
    clock(ms) { return new Date(ms).toLocaleTimeString([], { hour12: false }); },
    age(ms) {
      const s = Math.max(0, Math.round((this.now - ms) / 1000));
      if (s < 90) return `for ${s} s`;
      return s < 5400 ? `for ${Math.round(s / 60)} min` : `for ${(s / 3600).toFixed(1)} h`;
    },
    pick(s) {
      if (s.kind === "link") return { link: s.target };
      return s.kind === "path" ? { path: s.target } : { node: s.target.split("->")[0] };
    },
  },
};
