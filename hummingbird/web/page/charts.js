// SPDX-License-Identifier: BSD-3-Clause
// What happened over time. One cursor goes through all charts: the pointer moves it, or the arrow
// keys on a chart that has the focus.

const cursor = {index: null, watchers: []};

function moveCursor(index) {
  if (index === cursor.index) return;
  cursor.index = index;
  for (const watcher of cursor.watchers) watcher();
}

/** 0 and up to four round numbers above it, the last at or over `most`. */
function ticks(most) {
  if (!(most > 0)) return [0, 1];
  const rough = most / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s * 3.999 >= most) || 10 * power;
  const found = [0];
  while (found[found.length - 1] < most) found.push(found.length * step);
  return found;
}

const TIME_STEPS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60,
  120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800];

function timeTicks(start, end, most) {
  const step = TIME_STEPS.find((s) => (end - start) / s <= most) || (end - start || 1);
  const found = [];
  for (let t = Math.ceil(start / step - 1e-9) * step; t <= end + step * 1e-6; t += step) found.push(t);
  return found;
}

const timeLabel = (t, live) => (live ? clock(t) : t === 0 ? '0 s' : axisText(t, 'seconds'));

/** Values from 0 on, held in the interval that ends at their time. */
function stepPath(t, values, x, y, closed) {
  if (!t.length) return '';
  const points = [];
  for (let i = 0; i < t.length; i++) {
    const value = values[i];
    if (value === null || value === undefined) continue;
    const start = i ? x(t[i - 1]) : x.start;
    points.push(`${start.toFixed(1)} ${y(value).toFixed(1)}`, `${x(t[i]).toFixed(1)} ${y(value).toFixed(1)}`);
  }
  if (!points.length) return '';
  const line = `M${points.join('L')}`;
  const [first, last] = [points[0].split(' ')[0], points[points.length - 1].split(' ')[0]];
  return closed ? `${line}L${last} ${y(0)}L${first} ${y(0)}Z` : line;
}

function timeScale(series, left, right) {
  const {t} = series;
  const start = series.start;
  const end = t.length ? t[t.length - 1] : start + 1;
  const x = (time) => left + ((time - start) / Math.max(end - start, 1e-9)) * (right - left);
  x.start = left;
  x.range = [start, end];
  x.index = (px) => {
    const time = start + ((px - left) / Math.max(right - left, 1)) * (end - start);
    let i = t.findIndex((v) => v >= time);
    if (i < 0) i = t.length - 1;
    return i;
  };
  return x;
}

/** Follow the pointer and the arrow keys. */
function steer(holder, read) {
  holder.addEventListener('pointermove', (event) => {
    const now = read();
    if (now && now.t.length) moveCursor(now.x.index(event.clientX - holder.getBoundingClientRect().left));
  });
  holder.addEventListener('pointerleave', () => moveCursor(null));
  holder.addEventListener('blur', () => moveCursor(null));
  holder.addEventListener('keydown', (event) => {
    const now = read();
    const step = {ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20}[event.key];
    if (!now || !now.t.length || (!step && !['Home', 'End', 'Escape'].includes(event.key))) return;
    event.preventDefault();
    const last = now.t.length - 1;
    if (event.key === 'Escape') return moveCursor(null);
    if (!step) return moveCursor(event.key === 'Home' ? 0 : last);
    const from = cursor.index === null ? (step > 0 ? -1 : last + 1) : cursor.index;
    return moveCursor(Math.min(last, Math.max(0, from + step)));
  });
}

/** The line of a cursor in an SVG, and how to put it somewhere. */
function cursorLine(high) {
  const line = svg('line', {class: 'cursor', y1: 0, y2: high, visibility: 'hidden'});
  return [line, (x) => {
    line.setAttribute('visibility', x === null ? 'hidden' : 'visible');
    if (x !== null) fill(line, {x1: x.toFixed(1), x2: x.toFixed(1)}, []);
  }];
}

/**
 * A chart with a scale.
 * lines: [{label, kind, path (of the number shown without a cursor), pick(series) -> values, area}]
 */
function timeChart({title, kind, lines, high = 168, live}) {
  const readouts = lines.map((line) => {
    const shown = line.path ? num(line.path, kind) : el('span');
    const then = el('span', {class: 'then'});
    return {shown, then, label: el('li', {class: line.style},
      el('i', {'aria-hidden': 'true'}), `${line.label} `, shown, then)};
  });
  const when = el('li', {class: 'when', 'aria-live': 'polite'});
  const [grid, paths] = [svg('g'), lines.map((l) => svg('path', {class: `trace ${l.style}`}))];
  const [line, put] = cursorLine(high - 22);
  const picture = svg('svg', {role: 'img', height: high, 'aria-label': title}, grid, ...paths, line);
  const holder = el('div', {class: 'plot', tabindex: '0', role: 'group', 'aria-label': `${title}: arrow keys read it`}, picture);
  const box = el('figure', {class: 'chart'},
    el('figcaption', {}, el('h3', {}, title), el('ul', {class: 'legend'}, readouts.map((r) => r.label), when)), holder);
  let now = null;
  const showCursor = () => {
    const i = cursor.index !== null && now && cursor.index < now.t.length ? cursor.index : null;
    box.classList.toggle('reading', i !== null);
    put(i === null ? null : now.x(now.t[i]));
    when.textContent = i === null ? '' : `at ${timeLabel(now.t[i], live)}`;
    readouts.forEach((r, k) => { r.then.textContent = i === null ? '' : text(now.values[k][i], kind); });
  };
  cursor.watchers.push(showCursor);
  steer(holder, () => now);
  whenever((data) => {
    now = drawTime({series: data.series, lines, kind, high, live, holder, picture, grid, paths});
    showCursor();
  });
  return box;
}

function drawTime({series, lines, kind, high, live, holder, picture, grid, paths}) {
  const wide = Math.max(holder.clientWidth, 200);
  const values = lines.map((l) => l.pick(series));
  const most = Math.max(0, ...values.flat().filter((v) => v !== null));
  const scale = kind === 'percent' || kind === 'busy' ? [0, 0.5, 1] : ticks(most);
  const x = timeScale(series, 74, wide - 12);
  const top = scale[scale.length - 1];
  const y = (v) => high - 22 - (v / top) * (high - 32);
  picture.setAttribute('width', wide);
  const marks = timeTicks(...x.range, Math.max(2, Math.floor(wide / (live ? 110 : 96))));
  grid.replaceChildren(
    ...scale.flatMap((v) => [
      svg('line', {class: v ? 'rule' : 'base', x1: 74, x2: wide - 12, y1: y(v), y2: y(v)}),
      svg('text', {class: 'y', x: 66, y: y(v) + 4}, axisText(v, kind === 'packets' ? 'count' : kind)),
    ]),
    ...marks.map((t) => svg('text', {
      class: 'x', x: Math.min(Math.max(x(t), 74), wide - 12), y: high - 5,
      'text-anchor': x(t) > wide - 40 ? 'end' : x(t) < 80 ? 'start' : 'middle',
    }, timeLabel(t, live))));
  paths.forEach((path, k) => path.setAttribute('d', stepPath(series.t, values[k], x, y, lines[k].area)));
  return {t: series.t, x, values};
}

/** A small one for a row: from 0 to the most, which stands beside it. */
function spark({label, kind, pick, top = null, high = 30, live, style = 'sent'}) {
  const path = svg('path', {class: `trace ${style}`});
  const [line, put] = cursorLine(high);
  const picture = svg('svg', {role: 'img', height: high, 'aria-label': `${label} over time`},
    svg('line', {class: 'base', x1: 0, x2: '100%', y1: high - 0.5, y2: high - 0.5}), path, line);
  const holder = el('div', {class: 'plot'}, picture);
  const said = el('span', {class: 'said'});
  let now = null;
  const showCursor = () => {
    const i = cursor.index !== null && now && cursor.index < now.t.length ? cursor.index : null;
    put(i === null ? null : now.x(now.t[i]));
    const peak = now && now.values.length ? Math.max(...now.values) : null;
    said.textContent = i === null ? `peak ${text(peak, kind)}`
      : `${text(now.values[i], kind)} at ${timeLabel(now.t[i], live)}`;
  };
  cursor.watchers.push(showCursor);
  steer(holder, () => now);
  whenever((data) => {
    const wide = Math.max(holder.clientWidth, 60);
    const values = (pick(data.series) || []).map((v) => v || 0);
    const x = timeScale(data.series, 0, wide);
    const most = top || Math.max(...values, 1e-12);
    picture.setAttribute('width', wide);
    path.setAttribute('d', stepPath(data.series.t, values, x, (v) => high - 0.5 - (Math.min(v, most) / most) * (high - 3), true));
    now = {t: data.series.t, x, values};
    showCursor();
  });
  return el('div', {class: 'spark'}, holder, said);
}
