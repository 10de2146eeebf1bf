// SPDX-License-Identifier: BSD-3-Clause
// The live page: asks for status.json once a second and keeps the last POINTS answers. Seldom while
// nobody looks, and less and less often while nobody answers.

const POINTS = 600;
const EVERY_MS = 1000;
const HIDDEN_MS = 15000;
const SLOWEST_MS = 30000;
const TRYING = 'The page goes on trying.';

function emptySeries() {
  return {start: 0, t: [], received_pps: [], sent_pps: [], received_gbps: [], sent_gbps: [], dropped_pps: {},
    in_flight: [], lcore_busy: [], device: {rows_per_s: [], fill: []}};
}

/** What is kept, one list each. */
const kept = (s) => [s.t, s.received_pps, s.sent_pps, s.received_gbps, s.sent_gbps, s.in_flight,
  s.device.rows_per_s, s.device.fill, ...s.lcore_busy, ...Object.values(s.dropped_pps)];

function keep(series, status) {
  const r = status.rates;
  if (!series.t.length) series.start = status.time - status.interval_s;
  const past = series.t.length;
  series.t.push(status.time);
  for (const key of ['received_pps', 'sent_pps', 'received_gbps', 'sent_gbps']) series[key].push(r[key] || 0);
  series.in_flight.push(status.totals.in_flight);
  status.lcores.forEach((lcore, i) => {
    series.lcore_busy[i] = series.lcore_busy[i] || Array(past).fill(0);
    series.lcore_busy[i].push(lcore.busy || 0);
  });
  series.device.rows_per_s.push((status.device && status.device.rows_per_s) || 0);
  series.device.fill.push((status.device && status.device.fill) || 0);
  const drops = dropRates(status);
  for (const reason of new Set([...Object.keys(series.dropped_pps), ...Object.keys(drops)])) {
    series.dropped_pps[reason] = series.dropped_pps[reason] || Array(past).fill(0);
    series.dropped_pps[reason].push(drops[reason] || 0);
  }
  if (series.t.length > POINTS) {
    series.start = series.t[0];
    kept(series).forEach((list) => list.shift());
  }
}

function dropRates(status) {
  const found = {};
  for (const node of [...Object.values(status.ports), ...Object.values(status.nfs)]) {
    for (const [reason, pps] of Object.entries(node.drops_pps)) found[reason] = (found[reason] || 0) + pps;
  }
  return found;
}

/** What the page is built of: as long as this stays the same, only numbers change. */
function shapeOf(status) {
  const ports = Object.entries(status.ports).map(([name, p]) => [name, p.driver, p.mode, !!p.in, !!p.out]);
  const nfs = Object.entries(status.nfs).map(([name, nf]) => [name, nf.runs_on, nf.engine]);
  const dropped = Object.keys(status.totals.dropped).filter((r) => status.totals.dropped[r]);
  const edges = status.edges.map((e) => [e.from, e.to]);
  const paths = Object.entries(status.chains).map(([type, c]) => [type, c.path, c.packets > 0]);
  const {device} = status;
  return JSON.stringify([status.title, status.name, status.pid, ports, nfs, dropped, edges, paths, status.lcores.length,
    device && [device.lanes, device.is_cpu]]);
}

/** Take in one status. */
function addSample(status) {
  const before = state.data && state.data.status;
  if (before && before.time === status.time && before.pid === status.pid) return; // nothing new was measured
  if (!before || before.pid !== status.pid || before.started !== status.started) state.series = emptySeries();
  keep(state.series, status);
  state.data = {live: true, status, series: state.series, latency: null, settings: null, machine: null, summary: null};
  drawSoon();
}

/** Once for all samples that come before the browser draws; a hidden tab does not draw. */
function drawSoon() {
  if (state.frame) return;
  state.frame = requestAnimationFrame(() => {
    state.frame = null;
    const shape = shapeOf(state.data.status);
    const same = shape === state.shape;
    state.shape = shape;
    if (same) refresh(state.data);
    else build();
  });
}

const poll = {timer: null, failures: 0, since: null, answered: null, stopped: false};

async function ask() {
  clearTimeout(poll.timer);
  try {
    const answer = await fetch('status.json', {cache: 'no-store', signal: AbortSignal.timeout(10000)});
    const body = await answer.json().catch(() => null);
    if (!answer.ok || !body) throw new Error((body && body.error) || `the server says ${answer.status}`);
    if (body.v !== 1) throw new Error('the server is of another version than this page; load it again');
    poll.failures = 0;
    poll.since = null;
    poll.answered = Date.now();
    addSample(body);
    connected();
  } catch (error) {
    poll.failures += 1;
    poll.since = poll.since || poll.answered || Date.now();
    unreachable(error);
  }
  if (!poll.stopped) poll.timer = setTimeout(ask, nextAfter());
}

const backOff = () => Math.min(SLOWEST_MS, EVERY_MS * 2 ** Math.min(poll.failures, 6));
const nextAfter = () => Math.max(poll.failures ? backOff() : EVERY_MS, document.hidden ? HIDDEN_MS : 0);

/** A screen reader says it when it changes. */
function say(words, className) {
  const line = document.getElementById('connection');
  if (line.textContent !== words) line.textContent = words;
  line.hidden = false;
  line.className = className;
  document.body.classList.toggle('stale', className === 'off');
}

const connected = () => say('\u25cf Live: what happened in the last second, once a second.', 'on');

function unreachable(error) {
  const server = error instanceof TypeError || error.name === 'TimeoutError';
  const since = clock(poll.since / 1000);
  const why = error.message.replace(/[.]?$/, '.');
  if (!state.data) say(`\u25cb Waiting since ${since}: ${server ? 'the server does not answer.' : why}`, 'off');
  else if (server) say(`\u25cb The server has not been reachable since ${since}. What you see is from then. ${TRYING}`, 'off');
  else say(`\u25cb The instance has not been running since ${since}: ${why} What you see is from then. ${TRYING}`, 'off');
}

function goLive() {
  document.addEventListener('visibilitychange', () => { if (!document.hidden) ask(); });
  ask();
}

/** Asks no more. */
function stop() {
  clearTimeout(poll.timer);
  poll.stopped = true;
}
