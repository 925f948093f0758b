// The map: every cable as two curves, one per direction, coloured by measured utilisation.
// Suspects of open alerts pulse; links that are down are dashed. A click on a link or node filters the paths.
export default {
  template: `
    <div class="map" ref="box" @mouseleave="hover = null">
      <svg v-if="data.nodes.length" :width="w" :height="h" role="img" aria-label="topology, links coloured by utilisation"
           @click="pick(null)">
        <g v-for="l in curves" :key="l.name" class="link" :data-link="l.name"
           :class="{down: !l.up, chosen: l.name === data.link, route: routed(l), suspect: glows(l)}"
           @mousemove="point($event, 'link', l)" @mouseleave="hover = null"
           @click.stop="pick({link: l.name})">
          <path v-if="glows(l)" class="halo" :d="l.d" :style="{'--p': l.suspect}"/>
          <path v-if="routed(l)" class="under" :d="l.d" :stroke-width="l.width + 5"/>
          <path class="stroke" :d="l.d" :stroke="l.up ? colour(l.utilisation) : '#ff5d6c'" :stroke-width="l.width"/>
          <path class="arrow" :d="l.arrow" :fill="l.up ? colour(l.utilisation) : '#ff5d6c'"/>
          <path class="grip" :d="l.d"/>
        </g>
        <g v-for="n in dots" :key="n.name" class="node" :data-node="n.name" :transform="'translate(' + n.px + ',' + n.py + ')'"
           :class="{chosen: n.name === data.node, suspect: glows(n), silent: n.silent}"
           @mousemove="point($event, 'node', n)" @mouseleave="hover = null"
           @click.stop="pick({node: n.name})">
          <rect v-if="glows(n)" class="halo" :style="{'--p': n.suspect}" :x="-n.half - 5" y="-15" :width="2 * n.half + 10" height="30" rx="15"/>
          <rect v-if="labelled" class="body" :x="-n.half" y="-10" :width="2 * n.half" height="20" rx="10"/>
          <circle v-else class="body" r="5"/>
          <text v-if="labelled" dy="3.6">{{ n.name }}</text>
        </g>
      </svg>
      <div v-else class="waiting">
        <div class="spinner"></div>
        <div class="said">{{ data.waiting }}<span v-if="since !== null">{{ since }} s…</span></div>
        <div v-for="line in data.hints" class="hint">{{ line }}</div>
      </div>
      <div v-if="data.nodes.length" class="legend" aria-hidden="true">
        <span>utilisation</span><b>0</b><i class="ramp" :style="{background: ramp}"></i><b>100 %</b>
        <span class="key"><i class="dash"></i>down</span><span class="key"><i class="pulse"></i>suspect</span>
        <span class="key"><i class="way"></i>chosen path</span>
      </div>
      <div v-if="data.flags.length" class="flags" title="what this window's figures suffer from">
        <span v-for="f in data.flags.slice(0, 5)" :key="f">{{ f }}</span><span v-if="data.flags.length > 5">+{{ data.flags.length - 5 }}</span></div>
      <div v-if="hover" class="tip" :style="{left: hover.x + 'px', top: hover.y + 'px'}">
        <b>{{ hover.title }}</b>
        <div v-for="row in hover.rows"><span>{{ row[0] }}</span><em>{{ row[1] }}</em></div>
      </div>
    </div>`,
  props: { data: { type: Object, required: true } },
  data() {
    return { w: 600, h: 400, hover: null, now: Date.now() };
  },
  mounted() {
    this.watcher = new ResizeObserver(() => this.measure());
    this.watcher.observe(this.$refs.box);
    this.measure();
    this.clock = setInterval(() => { if (!this.data.nodes.length) this.now = Date.now(); }, 1000);
  },
  beforeUnmount() {
    this.watcher.disconnect();
    clearInterval(this.clock);
  },
  computed: {
    labelled() { return this.data.nodes.length <= 120; },
    since() {
      return this.data.since_ms ? Math.max(0, Math.round((this.now - this.data.since_ms) / 1000)) : null;
    },
    ramp() {
      const stops = [0, 0.25, 0.5, 0.7, 0.85, 1].map((u) => `${this.colour(u)} ${u * 100}%`);
      return `linear-gradient(90deg, ${stops.join(", ")})`;
    },
    dots() {
      const left = 34, right = 34, top = 26, bottom = 46;
      return this.data.nodes.map((n) => ({
        ...n,
        px: left + n.x * (this.w - left - right),
        py: top + n.y * (this.h - top - bottom),
        half: Math.max(14, 6 + 3.6 * n.name.length),
      }));
    },
    curves() {
      const at = Object.fromEntries(this.dots.map((n) => [n.name, n]));
      const seen = {};
      return this.data.links.map((l) => {
        const lane = (seen[l.source + "\n" + l.target] = (seen[l.source + "\n" + l.target] || 0) + 1);
        return this.curve(l, at[l.source], at[l.target], lane);
      });
    },
  },
  methods: {
    measure() {
      this.w = Math.max(200, this.$refs.box.clientWidth);
      this.h = Math.max(150, this.$refs.box.clientHeight);
    },
    curve(l, a, b, lane) {
      const dx = b.px - a.px, dy = b.py - a.py, length = Math.hypot(dx, dy) || 1;
      const bend = Math.min(13, 5 + length * 0.04) * (2 * lane - 1);
      const cx = (a.px + b.px) / 2 - (dy / length) * bend, cy = (a.py + b.py) / 2 + (dx / length) * bend;
      const t = 0.57, s = 1 - t;
      const x = s * s * a.px + 2 * s * t * cx + t * t * b.px, y = s * s * a.py + 2 * s * t * cy + t * t * b.py;
      const angle = Math.atan2(s * (cy - a.py) + t * (b.py - cy), s * (cx - a.px) + t * (b.px - cx));
      const tip = (r, da) => `${(x + r * Math.cos(angle + da)).toFixed(1)},${(y + r * Math.sin(angle + da)).toFixed(1)}`;
      return {
        ...l,
        d: `M${a.px.toFixed(1)},${a.py.toFixed(1)} Q${cx.toFixed(1)},${cy.toFixed(1)} ${b.px.toFixed(1)},${b.py.toFixed(1)}`,
        arrow: `M${tip(6.5, 0)} L${tip(5.2, 2.5)} L${tip(5.2, -2.5)} Z`,
        width: 1.6 + 2.4 * Math.min(1, l.utilisation),
      };
    },
    colour(u) {
      const stops = [[0, 47, 79, 102], [0.25, 45, 126, 140], [0.5, 111, 176, 110], [0.7, 236, 196, 82], [0.85, 241, 133, 62], [1, 242, 62, 86]];
      const v = Math.max(0, Math.min(1, u));
      const k = Math.max(1, stops.findIndex((s) => s[0] >= v));
      const [lo, hi] = [stops[k - 1], stops[k]], f = (v - lo[0]) / (hi[0] - lo[0]);
      return `rgb(${[1, 2, 3].map((i) => Math.round(lo[i] + f * (hi[i] - lo[i]))).join(",")})`;
    },
    glows(o) { return o.suspect >= 0.2; }, // less likely suspects are in the list and the tooltip, not on the map
    routed(l) { return this.data.route.includes(l.name); },
    pick(what) { this.$emit("pick", what || {}); },
    point(event, kind, o) {
      const box = this.$refs.box.getBoundingClientRect();
      const x = Math.min(event.clientX - box.left + 14, this.w - 210), y = Math.min(event.clientY - box.top + 14, this.h - 130);
      this.hover = { x, y, title: o.name, rows: kind === "link" ? this.linkRows(o) : this.nodeRows(o) };
    },
    linkRows(l) {
      const rows = [
        ["utilisation", (100 * l.utilisation).toFixed(1) + " %"],
        ["load", (l.load_bps / 1e6).toFixed(2) + " Mbit/s"],
        ["capacity", (l.capacity_bps / 1e6).toFixed(1) + " Mbit/s"],
        ["propagation", (l.propagation_delay_s * 1e3).toFixed(2) + " ms"],
      ];
      if (l.predicted_utilisation !== null) rows.splice(1, 0, ["twin expects", (100 * l.predicted_utilisation).toFixed(1) + " %"]);
      if (l.drops_pps > 0) rows.push(["drops", this.drops(l)]);
      if (!l.up) rows.unshift(["state", "DOWN"]);
      if (l.suspect > 0) rows.push(["suspected", (100 * l.suspect).toFixed(0) + " %"]);
      return rows;
    },
    drops(l) { // and by which classes
      const classes = l.queues.filter((q) => q.drops_pps > 0).map((q) => q.name);
      return l.drops_pps.toFixed(l.drops_pps < 100 ? 1 : 0) + " /s" + (classes.length ? " (" + classes.slice(0, 3).join(", ") + ")" : "");
    },
    nodeRows(n) {
      const rows = [["links", String(n.degree)], ["sends", (n.sends_bps / 1e6).toFixed(2) + " Mbit/s"], ["receives", (n.receives_bps / 1e6).toFixed(2) + " Mbit/s"]];
      if (n.silent) rows.unshift(["state", "silent"]);
      if (n.suspect > 0) rows.push(["suspected", (100 * n.suspect).toFixed(0) + " %"]);
      return rows;
    },
  },
};
