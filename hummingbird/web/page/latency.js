// SPDX-License-Identifier: BSD-3-Clause
// How long packets stay, on one logarithmic scale for all: the distribution where there is one (in a
// report), and where 50, 99 and 99.9 % of the samples end.

const MARKS = [['p50', 'p50', 'circle'], ['p99', 'p99', 'diamond'], ['p999', 'p99.9', 'triangle']];
const SHAPES = {
  circle: 'M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z',
  diamond: 'M0-6L5.5 0L0 6L-5.5 0z',
  triangle: 'M0-5.5L6 5L-6 5z',
};
const PER_OCTAVE = 6; // columns of a distribution

const mark = (shape, attributes) => svg('path', {d: SHAPES[shape], class: `mark ${shape}`, ...attributes});

function latencySection(data) {
  const rows = [
    ...Object.keys(data.status.nfs).map((name) => ({name, group: 'nfs', what: data.status.nfs[name].runs_on === 'gpu' ? 'NF on the device' : 'NF on the CPU'})),
    ...Object.keys(data.status.chains).filter((name) => data.status.chains[name].packets).map((name) => ({name, group: 'chains', what: 'whole chain'})),
  ].filter((row) => data.live || at3(data, row));
  const scale = {low: 1, high: 1000};
  whenever((now) => Object.assign(scale, latencyRange(now, rows)));
  return el('section', {id: 'latency'},
    el('h2', {}, 'Latency'),
    el('p', {class: 'hint'}, 'NF: from a packet\u2019s arrival in its queue until it goes on. Chain: from receipt until sent. ' +
      'One sample a burst; counters count every packet. Logarithmic scale.'),
    el('ul', {class: 'legend'}, MARKS.map(([, label, shape]) => el('li', {},
      svg('svg', {width: 16, height: 14, viewBox: '-8 -7 16 14', 'aria-hidden': 'true'}, mark(shape, {})), ` ${label}`))),
    el('div', {class: 'latencies'}, rows.map((row) => latencyRow(row, scale)), latencyAxis(scale)));
}

const binsOf = (data, row) => (data.latency && data.latency[row.group][row.name]) || [];

function latencyRange(data, rows) {
  const seen = [];
  for (const row of rows) {
    const found = data.status[row.group][row.name] && data.status[row.group][row.name].latency_us;
    if (found) seen.push(found.p50, found.p999);
    for (const [us] of binsOf(data, row)) if (us > 0) seen.push(us);
  }
  const some = seen.filter((x) => x > 0);
  if (!some.length) return {low: 1, high: 1000};
  const low = 10 ** Math.floor(Math.log10(Math.min(...some)) + 1e-9);
  const high = 10 ** Math.ceil(Math.log10(Math.max(...some)) + 1e-9);
  return {low, high: Math.max(high, 10 * low)};
}

const logScale = (scale, wide) => (us) =>
  8 + (wide - 16) * (Math.log(Math.max(us, scale.low) / scale.low) / Math.log(scale.high / scale.low));

function decades(scale) {
  const found = [];
  for (let us = scale.low; us <= scale.high * 1.001; us *= 10) found.push(us);
  return found;
}

function latencyRow(row, scale) {
  const high = 54;
  const path = ['status', row.group, row.name, 'latency_us'];
  const [grid, hill] = [svg('g'), svg('path', {class: 'hill'})];
  const marks = MARKS.map(([, , shape]) => mark(shape, {}));
  const picture = svg('svg', {height: high, role: 'img', 'aria-label': `Latency of ${row.name}`}, grid, hill, ...marks);
  const holder = el('div', {class: 'plot'}, picture);
  whenever((data) => {
    const wide = Math.max(holder.clientWidth, 120);
    const x = logScale(scale, wide);
    picture.setAttribute('width', wide);
    grid.replaceChildren(...decades(scale).map((us) => svg('line', {class: 'rule', x1: x(us), x2: x(us), y1: 0, y2: high - 4})),
      svg('line', {class: 'base', x1: 8, x2: wide - 8, y1: high - 4, y2: high - 4}));
    hill.setAttribute('d', hillPath(binsOf(data, row), x, high - 4));
    const found = at3(data, row);
    MARKS.forEach(([key], i) => {
      const us = found && found[key];
      marks[i].setAttribute('visibility', us ? 'visible' : 'hidden');
      if (us) marks[i].setAttribute('transform', `translate(${x(us).toFixed(1)} ${high - 4})`);
    });
  });
  return el('div', {class: 'latency'},
    el('div', {class: 'who'}, el('strong', {}, row.name), el('span', {}, row.what), el('span', {}, num([...path, 'samples'], 'samples'))), holder,
    el('dl', {}, MARKS.map(([key, label]) => el('div', {}, el('dt', {}, label), el('dd', {}, num([...path, key], 'us'))))));
}

const at3 = (data, row) => data.status[row.group][row.name] && data.status[row.group][row.name].latency_us;

/** Samples in columns of equal width on the scale; the highest column is as high as the row. */
function hillPath(bins, x, base) {
  const columns = new Map();
  for (const [us, count] of bins) {
    const k = Math.floor(Math.log2(Math.max(us, 1e-3)) * PER_OCTAVE + 1e-9);
    columns.set(k, (columns.get(k) || 0) + count);
  }
  const most = Math.max(1, ...columns.values());
  const parts = [];
  for (const [k, count] of [...columns].sort((a, b) => a[0] - b[0])) {
    const [a, b] = [x(2 ** (k / PER_OCTAVE)), x(2 ** ((k + 1) / PER_OCTAVE))];
    const top = base - Math.max(1, (count / most) * (base - 4));
    parts.push(`M${a.toFixed(1)} ${base}V${top.toFixed(1)}H${b.toFixed(1)}V${base}z`);
  }
  return parts.join('');
}

function latencyAxis(scale) {
  const picture = svg('svg', {height: 18, 'aria-hidden': 'true'});
  const holder = el('div', {class: 'plot'}, picture);
  whenever(() => {
    const wide = Math.max(holder.clientWidth, 120);
    const x = logScale(scale, wide);
    const all = decades(scale);
    picture.setAttribute('width', wide);
    picture.replaceChildren(...all.map((us, i) => svg('text', {
      class: 'x', x: i ? (i === all.length - 1 ? wide : x(us)) : 0, y: 13,
      'text-anchor': i ? (i === all.length - 1 ? 'end' : 'middle') : 'start',
    }, axisText(us, 'us'))));
  });
  return el('div', {class: 'latency axis'}, el('div', {class: 'who'}), holder, el('dl', {}));
}
