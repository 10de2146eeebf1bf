// SPDX-License-Identifier: BSD-3-Clause
// The chain as a graph: what every port and NF does, and how many packets go from one to the next.
// A port that packets both come in and leave at is there twice.

const BOXES = {usual: {wide: 168, high: 70, pad: 11}, narrow: {wide: 114, high: 86, pad: 9}};
let BOX = BOXES.usual;
const LEAST_GAP = 76; // between layers, for an edge and its label
const HEAD = 11; // length of an arrow's head

function graphNodes(status) {
  const nodes = [];
  const add = (id, path, name, kind, first, last) =>
    nodes.push({id, path, name, kind, first, last});
  for (const [name, port] of Object.entries(status.ports)) {
    const path = ['status', 'ports', name];
    const both = port.in && port.out;
    if (port.in) add(`in:${name}`, path, name, both ? 'in' : port.driver, true, false);
    if (port.out) add(`out:${name}`, path, name, both ? 'out' : port.driver, false, true);
  }
  for (const [name, nf] of Object.entries(status.nfs)) {
    add(name, ['status', 'nfs', name], name, nf.runs_on.toUpperCase(), false, false);
  }
  return nodes;
}

/** Those that carried packets, and those of the chains that did not yet. */
function graphEdges(status, ids) {
  const known = new Map();
  const from = (name) => (ids.has(`in:${name}`) ? `in:${name}` : name);
  const to = (name) => (ids.has(`out:${name}`) ? `out:${name}` : name);
  const add = (a, b, index) => {
    const edge = {from: from(a), to: to(b), a, b, index};
    const key = JSON.stringify([a, b]);
    if (ids.has(edge.from) && ids.has(edge.to) && !known.has(key)) known.set(key, edge);
  };
  status.edges.forEach((e, i) => add(e.from, e.to, i));
  for (const chain of Object.values(status.chains)) {
    for (let i = 1; i < chain.path.length; i++) add(chain.path[i - 1], chain.path[i], null);
  }
  return [...known.values()];
}

const rateOf = (status, edge) => (edge.index === null ? 0 : status.edges[edge.index].pps || 0);

/** The section. It is laid out anew when the width asks for the other direction. */
function graphSection(data) {
  const holder = el('div', {class: 'graph', tabindex: '0', role: 'group', 'aria-label': 'The chain as a graph'});
  const picker = el('div', {class: 'picker', role: 'group', 'aria-label': 'Show the way of one packet type'});
  const wider = el('p', {class: 'hint'}, 'The graph is wider than the screen: scroll it sideways.');
  const section = el('section', {id: 'chain'},
    el('h2', {}, 'The chain'),
    el('p', {class: 'hint'}, 'Numbers are packets per second', data.live ? ' now' : ' over the whole run',
      '; the thicker a line, the more. Dashed: no packets.'),
    picker, holder, wider);
  const graph = {nodes: graphNodes(data.status), upright: null};
  graph.edges = graphEdges(data.status, new Set(graph.nodes.map((n) => n.id)));
  graph.drawers = [];
  fillPicker(picker, data, (type) => { state.chosen = type; showChosen(graph, state.data.status); });
  whenever((now) => {
    const box = holder.clientWidth < 560 ? BOXES.narrow : BOXES.usual;
    const upright = pickDirection(graph, box, holder.clientWidth);
    if (upright !== graph.upright || box !== BOX || !holder.firstChild) {
      graph.upright = upright;
      BOX = box;
      drawGraph(graph, holder, now);
    }
    wider.hidden = holder.scrollWidth <= holder.clientWidth;
    graph.drawers.forEach((draw) => draw(now.status));
  });
  return section;
}

function fillPicker(picker, data, choose) {
  const all = Object.keys(data.status.chains);
  const types = all.length > 12 ? all.filter((type) => data.status.chains[type].packets) : all;
  const buttons = [];
  const press = (type, button) => {
    buttons.forEach((b) => b.setAttribute('aria-pressed', String(b === button)));
    choose(type);
  };
  for (const type of [null, ...types]) {
    const button = el('button', {type: 'button', 'aria-pressed': String(type === (types.includes(state.chosen) ? state.chosen : null))},
      type === null ? 'all types' : type);
    button.addEventListener('click', () => press(type, button));
    buttons.push(button);
  }
  picker.append(...buttons);
}

function showChosen(graph, status) {
  const chain = status.chains[state.chosen];
  const path = chain ? chain.path : null;
  const on = new Set(path ? path.slice(1).map((name, i) => JSON.stringify([path[i], name])) : []);
  const ends = new Set();
  for (const e of graph.edges) {
    const shown = !path || on.has(JSON.stringify([e.a, e.b]));
    e.group.classList.toggle('dim', !shown);
    if (e.label) e.label.classList.toggle('dim', !shown);
    if (shown) ends.add(e.from).add(e.to);
  }
  if (path) graph.nodes.forEach((n) => path.includes(n.name) && !n.first && !n.last && ends.add(n.id));
  graph.nodes.forEach((n) => n.group.classList.toggle('dim', !ends.has(n.id) && path !== null));
}

/** From left to right if that fits, else from top to bottom. */
function pickDirection(graph, box, width) {
  const back = backEdges(graph.nodes, graph.edges);
  const layer = assignLayers(graph.nodes, graph.edges, back);
  const layers = Math.max(...layer.values()) + 1;
  return layers * box.wide + (layers - 1) * LEAST_GAP + 24 > Math.max(width, 300);
}

function drawGraph(graph, holder, data) {
  forgetIn(holder);
  graph.drawers.length = 0;
  const {upright} = graph;
  graph.nodes.forEach((n) => { n.size = upright ? BOX.wide : BOX.high; });
  const plan = layout(graph.nodes, graph.edges, upright ? 14 : 22);
  const size = measure(plan, upright, holder.clientWidth);
  const spot = (id) => {
    const [l, place] = plan.at.get(id);
    const along = size.start + l * size.step;
    return upright ? [place - plan.low + size.margin, along] : [along, place - plan.low + size.margin];
  };
  const lines = svg('g');
  const boxes = svg('g');
  const labels = svg('g');
  const taken = graph.nodes.map((n) => boxAround(spot(n.id), BOX.wide + 4, BOX.high + 4));
  const wayOf = new Map(plan.links.map((link) => [link.edge, link.ids]));
  const ways = new Map(graph.edges.map((e) => [e, wayOf.get(e).map(spot)]));
  fanOut(graph, ways, plan.back);
  for (const e of graph.edges) drawEdge(graph, e, ways.get(e), lines, labels, taken);
  graph.nodes.forEach((n) => drawNode(graph, n, spot(n.id), boxes));
  const scale = Math.max(0.87, Math.min(1, holder.clientWidth / size.wide));
  holder.replaceChildren(svg('svg', {
    width: scale * size.wide, height: scale * size.high, viewBox: `0 0 ${size.wide} ${size.high}`, role: 'img',
    'aria-label': describeGraph(data.status),
  }, arrowHead(), boxes, lines, labels));
  refreshNumbers(data);
  showChosen(graph, data.status);
}

function measure(plan, upright, width) {
  const span = plan.high - plan.low;
  const margin = 12;
  if (upright) {
    const step = BOX.high + 66;
    const wide = Math.max(span + 2 * margin, 0);
    return {step, margin, start: margin + BOX.high / 2 + 8, wide, high: (plan.layers - 1) * step + BOX.high + 2 * margin + 16};
  }
  const room = (width - 2 * margin - BOX.wide) / Math.max(1, plan.layers - 1);
  const step = Math.min(Math.max(room, BOX.wide + LEAST_GAP), BOX.wide + 150);
  return {
    step, margin: margin + 10, start: margin + BOX.wide / 2,
    wide: (plan.layers - 1) * step + BOX.wide + 2 * margin, high: span + 2 * (margin + 10),
  };
}

const boxAround = ([x, y], wide, high) => [x - wide / 2, y - high / 2, x + wide / 2, y + high / 2];
const overlap = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

function arrowHead() {
  return svg('defs', {}, svg('marker', {
    id: 'head', viewBox: '0 0 10 10', refX: '0.5', refY: '5', markerWidth: HEAD, markerHeight: HEAD,
    markerUnits: 'userSpaceOnUse', orient: 'auto',
  }, svg('path', {d: 'M0 0L10 5L0 10z', class: 'head'})));
}

/** Ends of the edges from the middle of the boxes to their sides, next to each other. */
function fanOut(graph, ways, back) {
  const along = graph.upright ? 1 : 0;
  const beside = 1 - along;
  const half = (graph.upright ? BOX.high : BOX.wide) / 2;
  const room = (graph.upright ? BOX.wide : BOX.high) * 0.62;
  const sides = new Map();
  for (const [edge, points] of ways) {
    const sign = back.has(edge) ? -1 : 1;
    const last = points.length - 1;
    const put = (key, point, toward, shift) => sides.set(key, [...(sides.get(key) || []), {point, toward, shift}]);
    put(`${edge.from} ${sign}`, points[0], points[1][beside], sign * half);
    put(`${edge.to} ${-sign}`, points[last], points[last - 1][beside], -sign * (half + HEAD));
  }
  for (const side of sides.values()) {
    side.sort((a, b) => a.toward - b.toward);
    const step = Math.min(22, room / Math.max(1, side.length - 1));
    side.forEach((end, i) => {
      end.point[along] += end.shift;
      end.point[beside] += (i - (side.length - 1) / 2) * step;
    });
  }
}

/** Curves through the points; a bend is passed straight, as wide as a box. */
function curve(points, upright) {
  const axis = upright ? 1 : 0;
  const sign = Math.sign(points[points.length - 1][axis] - points[0][axis]) || 1;
  const half = (upright ? BOX.high : BOX.wide) / 2 * sign;
  const stops = [points[0]];
  for (const p of points.slice(1, -1)) {
    for (const side of [-half, half]) {
      const q = [...p];
      q[axis] += side;
      stops.push(q);
    }
  }
  stops.push(points[points.length - 1]);
  const pieces = [];
  for (let i = 1; i < stops.length; i++) {
    const [a, b] = [stops[i - 1], stops[i]];
    const middle = (a[axis] + b[axis]) / 2;
    const c = upright ? [[a[0], middle], [b[0], middle]] : [[middle, a[1]], [middle, b[1]]];
    pieces.push([a, ...c, b]);
  }
  return pieces;
}

function bezier([a, b, c, d], t) {
  const s = 1 - t;
  return [0, 1].map((i) => s ** 3 * a[i] + 3 * s * s * t * b[i] + 3 * s * t * t * c[i] + t ** 3 * d[i]);
}

function drawEdge(graph, edge, points, lines, labels, taken) {
  const pieces = curve(points, graph.upright);
  const round = (p) => p.map((x) => Math.round(10 * x) / 10).join(' ');
  const d = `M${round(pieces[0][0])}` + pieces.map((p) => `C${p.slice(1).map(round).join(' ')}`).join('');
  const line = svg('path', {d, class: 'edge', 'marker-end': 'url(#head)'});
  const title = svg('title');
  edge.group = svg('g', {class: 'link'}, line, title);
  lines.append(edge.group);
  const label = labelEdge(edge, pieces, taken, graph.upright);
  edge.label = label && label.group;
  if (label) labels.append(label.group);
  graph.drawers.push((status) => {
    const most = Math.max(...status.edges.map((e) => e.pps || 0), 1e-9);
    const pps = rateOf(status, edge);
    const packets = edge.index === null ? 0 : status.edges[edge.index].packets;
    line.setAttribute('stroke-width', (1.25 + 7 * Math.sqrt(pps / most)).toFixed(2));
    edge.group.classList.toggle('idle', packets === 0);
    if (label) label.show(packets > 0);
    title.textContent = `${edge.a} \u2192 ${edge.b}: ${text(packets, 'packets')}, ${text(pps, 'pps')}`;
  });
}

/** Above a line that is nearly level, which the label would hide; on others. */
function beside([a, , , d], [x, y], upright) {
  const level = !upright && Math.abs(a[1] - d[1]) < 24;
  return level ? [x, Math.min(a[1], d[1], y) - 13] : [x, y];
}

/** A label at the line, where nothing else is. */
function labelEdge(edge, pieces, taken, upright) {
  if (edge.index === null) return null;
  const spots = [];
  for (const t of [0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.9]) {
    for (const piece of pieces) spots.push(beside(piece, bezier(piece, t), upright));
  }
  const free = spots.find((p) => !taken.some((box) => overlap(box, boxAround(p, 72, 16))));
  const [x, y] = free || spots[0];
  taken.push(boxAround([x, y], 72, 16));
  const number = svgNum(['status', 'edges', edge.index, 'pps'], 'pps', {x, y: y + 4, class: 'rate'});
  const ground = svg('rect', {y: y - 8, height: 16, rx: 3, class: 'ground'});
  const group = svg('g', {}, ground, number);
  const show = (shown) => {
    const wide = 7.2 * number.textContent.length + 4;
    fill(ground, {x: x - wide / 2, width: wide}, []);
    group.setAttribute('visibility', shown ? 'visible' : 'hidden');
  };
  return {group, show};
}

function drawNode(graph, node, [x, y], boxes) {
  const [left, top] = [x - BOX.wide / 2, y - BOX.high / 2];
  const port = node.first || node.last;
  const narrow = BOX === BOXES.narrow;
  const pad = BOX.pad + (port && !narrow ? 5 : 0);
  const [start, end] = [left + pad, left + BOX.wide - pad];
  const line = (n) => top + (narrow ? 18 : 20) + (narrow ? 17 : 19) * n;
  const bar = svg('rect', {x: start, y: top + BOX.high - 9, height: 3, width: 0, class: 'load'});
  const drops = svgNum([...node.path, 'drops'], 'dropped', {x: start, y: line(narrow ? 3 : 2) - 1, class: narrow ? 'lost narrow' : 'lost'});
  const tag = svg('g', {class: 'tag', visibility: 'hidden'},
    svg('rect', {x: left + 8, y: top - 10, width: 76, height: 16, rx: 3}), svg('text', {x: left + 46, y: top + 2}, 'bottleneck'));
  node.group = svg('g', {class: `node ${port ? 'port' : node.kind.toLowerCase()}`},
    svg('rect', {x: left, y: top, width: BOX.wide, height: BOX.high, rx: port ? 20 : 6, class: 'box'}),
    svg('text', {x: start, y: line(0), class: 'name'}, short(node, narrow)),
    svg('text', {x: narrow ? start : end, y: line(narrow ? 1 : 0), class: `kind ${narrow ? 'left' : ''}`}, narrow && port ? (node.last ? 'out' : 'in') : node.kind),
    svgNum([...node.path, node.last ? 'out' : 'in', 'pps'], 'pps', {x: start, y: line(narrow ? 2 : 1)}),
    svgNum([...node.path, 'busy'], 'busy', {x: end, y: line(1), class: 'busy'}),
    port ? null : svg('rect', {x: start, y: top + BOX.high - 9, height: 3, width: end - start, class: 'rail'}),
    port ? null : bar, drops, tag, svg('title', {}, `${node.name}, ${node.kind}`));
  boxes.append(node.group);
  graph.drawers.push((status) => {
    const now = status[node.path[1]][node.name];
    bar.setAttribute('width', ((end - start) * Math.min(1, now.busy || 0)).toFixed(1));
    drops.classList.toggle('zero', total(now.drops) === 0);
    const worst = status.bottleneck.node === node.name;
    node.group.classList.toggle('worst', worst);
    tag.setAttribute('visibility', worst ? 'visible' : 'hidden');
  });
}

/** A name in as much room as a box has for it. */
function short({name, kind}, narrow) {
  const room = Math.floor(narrow ? (BOX.wide - 20) / 8.8 : (BOX.wide - 34 - 8 * kind.length) / 8.8);
  return name.length <= room ? name : `${name.slice(0, room - 1)}\u2026`;
}

function describeGraph(status) {
  const lines = status.edges.map((e) => `${e.from} to ${e.to}: ${text(e.pps, 'pps')}`);
  return `Packets from node to node. ${lines.join('; ')}. The tables below have the same numbers.`;
}
