// SPDX-License-Identifier: BSD-3-Clause
// Where the nodes of a graph go: layers along the way of the packets, few crossings, straight lines.
// A node is {id, size, first, last}; an edge {from, to}. After Sugiyama, Tagawa and Toda (1981).

/** Edges that lead back, so that the others have no cycle. */
function backEdges(nodes, edges) {
  const next = new Map(nodes.map((n) => [n.id, []]));
  edges.forEach((e) => next.get(e.from).push(e));
  const state = new Map();
  const back = new Set();
  const visit = (id) => {
    state.set(id, 'open');
    for (const e of next.get(id)) {
      if (state.get(e.to) === 'open') back.add(e);
      else if (!state.has(e.to)) visit(e.to);
    }
    state.set(id, 'done');
  };
  nodes.filter((n) => n.first).forEach((n) => state.has(n.id) || visit(n.id));
  nodes.forEach((n) => state.has(n.id) || visit(n.id));
  return back;
}

/** The layer of each node: one more than the last of those before it; outputs are all in the last. */
function assignLayers(nodes, edges, back) {
  const layer = new Map(nodes.map((n) => [n.id, 0]));
  const ways = edges.map((e) => (back.has(e) ? [e.to, e.from] : [e.from, e.to]));
  for (let round = 0, changed = true; changed && round <= nodes.length; round++) {
    changed = false;
    for (const [a, b] of ways) {
      if (layer.get(b) <= layer.get(a)) {
        layer.set(b, layer.get(a) + 1);
        changed = true;
      }
    }
  }
  const alone = new Set(nodes.map((n) => n.id));
  edges.forEach((e) => [e.from, e.to].forEach((id) => alone.delete(id)));
  const last = Math.max(1, ...layer.values());
  nodes.filter((n) => alone.has(n.id) && !n.first).forEach((n) => layer.set(n.id, Math.min(1, last - 1)));
  nodes.filter((n) => n.last).forEach((n) => layer.set(n.id, last));
  return layer;
}

/** Every edge as a chain of nodes in neighbouring layers, with bends where it passes one. */
function chains(edges, back, layer, layers) {
  return edges.map((e) => {
    const [a, b] = back.has(e) ? [e.to, e.from] : [e.from, e.to];
    const chain = [a];
    for (let at = layer.get(a) + 1; at < layer.get(b); at++) {
      const bend = {id: `bend ${e.from} ${e.to} ${at}`, size: 22, bend: true};
      layers[at].push(bend);
      chain.push(bend.id);
    }
    chain.push(b);
    return {edge: e, ids: back.has(e) ? chain.reverse() : chain};
  });
}

function neighbours(links) {
  const near = new Map();
  const add = (a, b) => near.set(a, [...(near.get(a) || []), b]);
  for (const {ids} of links) {
    for (let i = 1; i < ids.length; i++) {
      add(ids[i - 1], ids[i]);
      add(ids[i], ids[i - 1]);
    }
  }
  return near;
}

function crossings(layers, links) {
  const place = new Map();
  layers.forEach((row, l) => row.forEach((n, i) => place.set(n.id, [l, i])));
  const between = layers.map(() => []);
  for (const {ids} of links) {
    for (let i = 1; i < ids.length; i++) {
      const [a, b] = [place.get(ids[i - 1]), place.get(ids[i])].sort((x, y) => x[0] - y[0]);
      between[a[0]].push([a[1], b[1]]);
    }
  }
  let count = 0;
  for (const lines of between) {
    for (let i = 0; i < lines.length; i++) {
      for (let j = 0; j < i; j++) {
        if ((lines[i][0] - lines[j][0]) * (lines[i][1] - lines[j][1]) < 0) count++;
      }
    }
  }
  return count;
}

/** Sort each layer by the mean place of its neighbours, to and fro; keep the best order seen. */
function order(layers, links) {
  const near = neighbours(links);
  let best = layers.map((row) => [...row]);
  let fewest = crossings(best, links);
  const rows = layers.map((row) => [...row]);
  for (let sweep = 0; sweep < 12 && fewest > 0; sweep++) {
    const down = sweep % 2 === 0;
    for (let k = 1; k < rows.length; k++) {
      const l = down ? k : rows.length - 1 - k;
      const fixed = new Map(rows[down ? l - 1 : l + 1].map((n, i) => [n.id, i]));
      const mean = new Map(rows[l].map((n, i) => {
        const places = (near.get(n.id) || []).filter((id) => fixed.has(id)).map((id) => fixed.get(id));
        return [n.id, places.length ? total(places) / places.length : i];
      }));
      rows[l].sort((a, b) => mean.get(a.id) - mean.get(b.id));
    }
    const found = crossings(rows, links);
    if (found < fewest) {
      fewest = found;
      best = rows.map((row) => [...row]);
    }
  }
  return best;
}

/** Places across the layers: near the mean of the neighbours, and apart from each other. */
function across(layers, links, gap) {
  const near = neighbours(links);
  const place = new Map();
  for (const row of layers) {
    let end = 0;
    for (const n of row) {
      place.set(n.id, end + n.size / 2);
      end += n.size + gap;
    }
    const middle = (end - gap) / 2;
    row.forEach((n) => place.set(n.id, place.get(n.id) - middle));
  }
  for (let round = 0; round < 24; round++) {
    for (const row of layers) {
      const wanted = row.map((n) => {
        const ids = near.get(n.id) || [];
        return ids.length ? total(ids.map((id) => place.get(id))) / ids.length : place.get(n.id);
      });
      const apart = (i) => (row[i].size + row[i - 1].size) / 2 + gap;
      const low = [...wanted];
      const high = [...wanted];
      for (let i = 1; i < row.length; i++) low[i] = Math.max(low[i], low[i - 1] + apart(i));
      for (let i = row.length - 2; i >= 0; i--) high[i] = Math.min(high[i], high[i + 1] - apart(i + 1));
      row.forEach((n, i) => place.set(n.id, (low[i] + high[i]) / 2));
    }
  }
  return place;
}

/** {at: Map(id -> [layer, place across]), links: [{edge, ids}], layers, low, high} */
function layout(nodes, edges, gap) {
  const back = backEdges(nodes, edges);
  const layer = assignLayers(nodes, edges, back);
  const count = Math.max(...layer.values()) + 1;
  const layers = Array.from({length: count}, () => []);
  nodes.forEach((n) => layers[layer.get(n.id)].push(n));
  const links = chains(edges, back, layer, layers);
  const ordered = order(layers, links);
  const place = across(ordered, links, gap);
  const spots = new Map();
  let low = Infinity;
  let high = -Infinity;
  ordered.forEach((row, l) => row.forEach((n) => {
    spots.set(n.id, [l, place.get(n.id)]);
    low = Math.min(low, place.get(n.id) - n.size / 2);
    high = Math.max(high, place.get(n.id) + n.size / 2);
  }));
  return {at: spots, links, layers: count, low, high, back};
}
