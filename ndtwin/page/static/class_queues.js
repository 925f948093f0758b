// The class queues at the sending end of the link shown: what each sends, drops and holds. Nothing where none is told.
export default {
  template: `
    <div v-if="data.rows.length" class="queues" :data-queues="data.link"><table aria-label="class queues of the link">
      <thead><tr><th>class</th><th>sends<small>Mbit/s</small></th><th>drops<small>/s</small></th><th class="waits">waits<small>kB</small></th></tr></thead>
      <tbody><tr v-for="r in data.rows" :key="r.name" :data-class="r.name" :class="{drops: r.drops_pps > 0}">
        <td :title="r.name">{{ r.name }}</td><td>{{ (r.sent_bps / 1e6).toFixed(2) }}</td>
        <td>{{ rate(r.drops_pps) }}</td><td class="waits">{{ (r.depth_octets / 1e3).toFixed(1) }}</td></tr></tbody>
    </table></div>`,
  props: { data: { type: Object, required: true } },
  methods: {
    rate(v) { return v === 0 ? "0" : v < 0.1 ? "< 0.1" : v < 100 ? v.toFixed(1) : v.toFixed(0); },
  },
};
