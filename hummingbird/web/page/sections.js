// SPDX-License-Identifier: BSD-3-Clause
// The parts of the page, from top to bottom.

const S = 'status';

function headSection(data) {
  const {status} = data;
  const facts = data.live
    ? [['instance', status.name], ['process', `${status.pid}`], ['running for', num([S, 'uptime_s'], 'seconds')],
      ['route policy', num([S, 'policy_version'], 'version')]]
    : [['instance', status.name], ['ran for', num(['summary', 'seconds'], 'seconds')],
      ['started', moment(status.started)], ['route policy', num([S, 'policy_version'], 'version')]];
  return el('header', {},
    el('p', {class: 'kind'}, el('b', {}, 'Hummingbird'), data.live ? ' live' : ' report of a run'),
    el('h1', {}, status.title),
    el('dl', {class: 'facts'}, facts.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value)))));
}

/** received + created = sent + dropped + in flight, each with its number. */
function balanceSection(data) {
  const T = [S, 'totals'];
  const R = [S, 'rates'];
  const tile = (sign, label, key, ...more) => [
    sign ? el('span', {class: 'sign', 'aria-hidden': 'true'}, sign) : null,
    el('div', {class: `tile ${key}`}, el('h3', {}, label), el('p', {class: 'big'}, num([...T, key], 'packets')),
      el('p', {class: 'small'}, ...more)),
  ];
  const verdict = el('p', {class: 'verdict', id: 'balance'});
  const tiles = el('div', {class: 'balance'},
    tile('', 'Received', 'received', num([...R, 'received_pps'], 'pps'), ', ', num([...R, 'received_gbps'], 'gbps')),
    tile('+', 'Created', 'created', 'by NFs'),
    tile('=', 'Sent', 'sent', num([...R, 'sent_pps'], 'pps'), ', ', num([...R, 'sent_gbps'], 'gbps')),
    tile('+', 'Dropped', 'dropped', num([...R, 'dropped_pps'], 'pps')),
    tile('+', 'In flight', 'in_flight', data.live ? 'at this moment' : 'at the end'));
  whenever((now) => {
    showBalance(verdict, now);
    tiles.querySelector('.dropped').classList.toggle('some', total(now.status.totals.dropped) > 0);
  });
  return el('section', {id: 'summary', 'aria-label': 'Every packet'},
    tiles, verdict, missedLine(), bottleneckLine());
}

function showBalance(verdict, data) {
  const t = data.status.totals;
  const off = data.summary ? data.summary.balance : t.received + t.created - t.sent - total(t.dropped) - t.in_flight;
  const good = off === 0;
  verdict.className = `verdict ${good ? 'good' : data.live ? 'moving' : 'bad'}`;
  verdict.setAttribute('data-off', String(off));
  verdict.textContent = good ? '\u2713 Balanced: every packet is accounted for.'
    : data.live ? `Packets are on the move while the counters are read: ${text(Math.abs(off), 'packets')} apart at this moment.`
      : `\u2717 OFF BY ${text(Math.abs(off), 'packets')}: ${off > 0 ? 'some are missing' : 'some were counted twice'}. This is a bug of Hummingbird; please report it.`;
}

function missedLine() {
  const line = el('p', {class: 'missed'}, '\u26a0 ', num([S, 'totals', 'missed'], 'packets'),
    ' more were dropped by an interface or the kernel before Hummingbird could receive them.');
  whenever((data) => { line.hidden = !data.status.totals.missed; });
  return line;
}

/** What ran before a restart: all else on the page is of the last run. */
function runsSection(data) {
  const runs = (data.summary && data.summary.runs) || [];
  if (!runs.length) return null;
  const rows = runs.map((run, i) => {
    const P = ['summary', 'runs', i];
    const off = run.balance === 0 ? '\u2713 balanced' : `\u2717 OFF BY ${text(Math.abs(run.balance), 'packets')}`;
    return [[el('strong', {}, run.title), under(off)], num([...P, 'seconds'], 'seconds'),
      ...['received', 'created', 'sent', 'dropped', 'in_flight'].map((key) => num([...P, key], 'packets'))];
  });
  return el('section', {id: 'runs'}, el('h2', {}, 'Before a restart'),
    under('The instance was restarted. All else on this page is of what ran last; this ran before it, in this order.'),
    table('run-table', [['topology'], ['ran for', 'n'], ['received', 'n'], ['created', 'n'], ['sent', 'n'], ['dropped', 'n'],
      ['in flight', 'n']], rows));
}

function bottleneckLine() {
  const where = el('strong');
  const why = el('span', {id: 'why'});
  const line = el('p', {class: 'bottleneck', id: 'bottleneck'}, where, ' ', why);
  whenever(({status: {bottleneck: b}}) => {
    const none = !b.node && ['none', 'input'].includes(b.kind);
    line.classList.toggle('none', none);
    where.textContent = none ? 'Bottleneck:' : `Bottleneck (${b.kind}):`;
    if (why.textContent !== b.why) why.textContent = b.why;
  });
  return line;
}

function timeSection(data) {
  const {live} = data;
  const rates = (key) => [S, 'rates', key];
  const flow = (a, b, unit) => [
    {label: 'received', path: rates(a), pick: (s) => s[a], style: 'received'},
    {label: 'sent', path: rates(b), pick: (s) => s[b], style: 'sent', area: true},
  ].reverse().map((l) => ({...l, unit}));
  const cores = data.status.lcores.map((lcore, i) => el('div', {class: 'row'},
    el('div', {class: 'who'}, el('strong', {}, `lcore ${lcore.id}`),
      el('span', {}, lcore.cpu === null ? 'not pinned' : `CPU ${lcore.cpu}`)),
    spark({label: `lcore ${lcore.id}`, kind: 'busy', pick: (s) => s.lcore_busy[i], top: 1, live}),
    el('div', {class: 'amount'}, num([S, 'lcores', i, 'busy'], 'busy'))));
  return el('section', {id: 'time'},
    el('h2', {}, 'Over time'),
    live ? el('p', {class: 'hint'}, 'What this page has seen, ten minutes at most.') : null,
    el('div', {class: 'charts'},
      timeChart({title: 'Packets per second', kind: 'pps', lines: flow('received_pps', 'sent_pps'), live}),
      timeChart({title: 'Bits per second', kind: 'gbps', lines: flow('received_gbps', 'sent_gbps'), live}),
      timeChart({title: 'Packets in flight', kind: 'packets', high: 130, live,
        lines: [{label: 'in flight', path: [S, 'totals', 'in_flight'], pick: (s) => s.in_flight, style: 'sent', area: true}]}),
      el('figure', {class: 'chart'}, el('figcaption', {}, el('h3', {}, 'Lcores'),
        el('p', {class: 'hint'}, 'passes that found something to do')), el('div', {class: 'rows'}, cores))));
}

// ---- tables: on a phone each row becomes a card, so that nothing has to be scrolled sideways

function table(id, columns, rows) {
  return el('table', {id},
    el('thead', {}, el('tr', {}, columns.map(([name, kind]) => el('th', {scope: 'col', class: kind}, name)))),
    el('tbody', {}, rows.map((cells) => el('tr', {}, cells.map((cell, i) => el(i ? 'td' : 'th', {
      class: columns[i][1], 'data-label': columns[i][0], scope: i ? null : 'row',
    }, el('div', {}, cell)))))));
}

const under = (...words) => el('p', {class: 'hint'}, ...words);
const queue = (P) => [num([...P, 'depth'], 'packets'), under('of ', num([...P, 'depth_most'], 'packets'))];
const stay = (P) => {
  const key = (name) => num([...P, 'latency_us', name], 'us');
  return [key('p50'), under('p99 ', key('p99'), ', p99.9 ', key('p999'))];
};

function dropsOf(path, data) {
  const cell = el('span', {class: 'reasons'});
  whenever((now) => {
    const found = Object.entries(path.reduce((v, k) => (v || {})[k], now) || {}).filter(([, n]) => n);
    const said = found.map(([reason, n]) => `${reason}: ${text(n, 'packets')}`).join(', ') || 'none';
    if (cell.textContent !== said) cell.textContent = said;
  });
  return cell;
}

function dropSection(data) {
  const names = Object.keys(data.status.totals.dropped).filter((r) => data.status.totals.dropped[r])
    .sort((a, b) => data.status.totals.dropped[b] - data.status.totals.dropped[a]);
  const body = names.map((reason) => [
    [el('strong', {}, reason), el('p', {class: 'hint'}, constants.reasons[reason] || '')],
    num([S, 'totals', 'dropped', reason], 'packets'),
    where(reason),
    spark({label: `drops for ${reason}`, kind: 'pps', pick: (s) => s.dropped_pps[reason], live: data.live, style: 'lost'}),
  ]);
  return el('section', {id: 'drops'}, el('h2', {}, 'Drops'),
    names.length ? table('drop-table', [['reason'], ['packets', 'n'], ['where'], ['over time', 'wide']], body)
      : el('p', {}, 'No packet was dropped.'));
}

function where(reason) {
  const cell = el('span', {class: 'reasons'});
  whenever(({status}) => {
    const said = [...Object.entries(status.ports), ...Object.entries(status.nfs)]
      .filter(([, node]) => node.drops[reason])
      .map(([name, node]) => `${name}: ${text(node.drops[reason], 'packets')}`).join(', ') || NONE;
    if (cell.textContent !== said) cell.textContent = said;
  });
  return cell;
}

const WAYS = [['in', 'in'], ['out', 'out']];

function portSection(data) {
  const rows = Object.entries(data.status.ports).flatMap(([name, port]) => WAYS.filter(([way]) => port[way]).map(([way]) => {
    const P = [S, 'ports', name];
    const last = way === 'out' || !port.out;
    return [
      [el('strong', {}, name), ` ${way}`, el('p', {class: 'hint'}, port.driver, port.mode ? `: ${port.mode}` : '')],
      num([...P, way, 'packets'], 'packets'), num([...P, way, 'pps'], 'pps'), num([...P, way, 'gbps'], 'gbps'),
      num([...P, 'busy'], 'percent'),
      way === 'in' ? num([...P, 'missed'], 'packets') : '', way === 'out' ? queue(P) : '', way === 'out' ? stay(P) : '',
      last ? dropsOf([...P, 'drops'], data) : '',
    ];
  }));
  return el('section', {id: 'ports'}, el('h2', {}, 'Ports'),
    table('port-table', [['port'], ['packets', 'n'], ['rate', 'n'], ['bits', 'n'], ['busy', 'n'], ['missed', 'n'], ['waiting', 'n'],
      ['whole stay, p50', 'n'], ['dropped']], rows));
}

function nfSection(data) {
  const rows = Object.entries(data.status.nfs).map(([name, nf]) => {
    const P = [S, 'nfs', name];
    return [
      [el('strong', {}, name), el('p', {class: 'hint'}, nf.runs_on === 'gpu' ? 'on the device' : `on the CPU, engine ${nf.engine}`)],
      num([...P, 'in', 'packets'], 'packets'), num([...P, 'in', 'pps'], 'pps'), num([...P, 'busy'], 'percent'),
      queue(P), [num([...P, 'retyped'], 'packets'), under('created ', num([...P, 'created'], 'packets'))],
      stay(P),
      dropsOf([...P, 'drops'], data),
    ];
  });
  return el('section', {id: 'nfs'}, el('h2', {}, 'Network functions'),
    rows.length ? table('nf-table', [['nf'], ['packets', 'n'], ['rate', 'n'], ['busy', 'n'], ['waiting', 'n'],
      ['re-typed', 'n'], ['latency, p50', 'n'], ['dropped']], rows)
      : el('p', {}, 'None: packets go from port to port.'));
}

function chainSection(data) {
  const rows = Object.entries(data.status.chains).map(([type, chain]) => {
    const P = [S, 'chains', type];
    return [
      [el('strong', {}, type), el('p', {class: 'hint'}, chain.path.join(' \u2192 ') || 'no path')],
      num([...P, 'packets'], 'packets'), num([...P, 'pps'], 'pps'), num([...P, 'sent'], 'packets'), num([...P, 'dropped'], 'packets'),
      stay(P),
    ];
  });
  return el('section', {id: 'chains'}, el('h2', {}, 'Packet types and their chains'),
    table('chain-table', [['packet type'], ['packets', 'n'], ['rate', 'n'], ['sent', 'n'], ['dropped', 'n'],
      ['whole stay, p50', 'n']], rows));
}

function counterSection(data) {
  const found = Object.entries((data.summary && data.summary.counters) || {});
  const rows = found.flatMap(([nf, names]) => Object.keys(names).map((name) => [
    [el('strong', {}, name), el('p', {class: 'hint'}, nf)], num(['summary', 'counters', nf, name], 'packets')]));
  if (!rows.length) return null;
  const more = rows.length > 200 ? el('p', {class: 'hint'}, `The first 200 of ${rows.length}; all are in the JSON.`) : null;
  return el('section', {id: 'counters'}, el('h2', {}, 'Rules and counters'),
    table('counter-table', [['rule or counter'], ['packets', 'n']], rows.slice(0, 200)), more);
}

// ---- the device

function deviceSection(data) {
  const {device} = data.status;
  if (!device) {
    return el('section', {id: 'device'}, el('h2', {}, 'Device'), el('p', {}, 'No OpenCL device: CPU cores run all network functions.'));
  }
  const D = [S, 'device'];
  const fact = (name, ...value) => el('div', {}, el('dt', {}, name), el('dd', {}, ...value));
  return el('section', {id: 'device'}, el('h2', {}, 'Device and batches'),
    el('p', {class: 'device-name'}, el('strong', {}, num([...D, 'name'], 'text')), ' ', el('span', {}, num([...D, 'runtime'], 'text'))),
    device.is_cpu ? el('p', {class: 'note'}, 'Here a CPU plays the GPU (PoCL or another OpenCL runtime for CPUs): what it shows is how the protocol works, not how fast a GPU is.') : null,
    el('div', {class: 'columns'},
      el('dl', {class: 'list'},
        fact('state', num([...D, 'state'], 'text')), fact('executor', num([...D, 'executor'], 'text')),
        fact('tier', num([...D, 'tier'], 'text')), fact('memory', num([...D, 'binding'], 'text')),
        fact('lanes of a row', num([...D, 'lanes'], 'lanes')), fact('resident', num([...D, 'resident_groups'], 'groups')),
        fact('rows', num([...D, 'rows'], 'rows'), ', ', num([...D, 'rows_per_s'], 'rps')),
        fact('packets a row', num([...D, 'packets_per_row'], 'ppr')),
        fact('launched', num([...D, 'launches'], 'times'), '; again ', num([...D, 'relaunches'], 'times')),
        fact('failures', num([...D, 'failures'], 'times')), fact('copied', num([...D, 'copied_bytes'], 'bytes'))),
      el('div', {}, slotBar(D), batchBars(D)),
      el('div', {class: 'rows'}, deviceSpark('rows', 'rps', 'rows_per_s', null, data.live), deviceSpark('fill', 'percent', 'fill', 1, data.live))));
}

function deviceSpark(label, kind, key, top, live) {
  return el('div', {class: 'row'}, el('div', {class: 'who'}, el('strong', {}, label)),
    spark({label, kind, pick: (s) => s.device[key], top, live}),
    el('div', {class: 'amount'}, num([S, 'device', key], kind)));
}

/** Of the slots of the rows: with a packet, and dummies. */
function slotBar(D) {
  const real = el('i', {class: 'real'});
  whenever(({status}) => { real.style.width = `${100 * ((status.device && status.device.fill) || 0)}%`; });
  return el('div', {class: 'slots'}, el('h3', {}, 'Slots of the rows'),
    el('div', {class: 'slot-bar', 'aria-hidden': 'true'}, real),
    el('p', {}, el('b', {class: 'key real'}, 'with a packet '), num([...D, 'slots_real_per_s'], 'sps'), ', ', num([...D, 'fill'], 'percent')),
    el('p', {}, el('b', {class: 'key dummy'}, 'dummies '), num([...D, 'slots_dummy_per_s'], 'sps')));
}

const bucketName = (k, most) => {
  const [low, high] = [2 ** k, Math.min(2 ** (k + 1) - 1, most)];
  return low >= high ? `${low}` : `${low}\u2013${high}`;
};

function batchBars(D) {
  const bars = [];
  const lanes = state.data.status.device.lanes || 1;
  const count = Math.floor(Math.log2(lanes)) + 1;
  const rows = Array.from({length: count}, (_, k) => {
    const bar = el('i');
    bars.push(bar);
    return el('li', {}, el('span', {class: 'size'}, `${bucketName(k, lanes)} ${k ? 'packets' : 'packet'}`), el('span', {class: 'track', 'aria-hidden': 'true'}, bar),
      num([...D, 'batch', k], 'rows', {class: 'amount'}));
  });
  whenever(({status}) => {
    const most = Math.max(1, ...status.device.batch);
    bars.forEach((bar, k) => { bar.style.width = `${100 * (status.device.batch[k] || 0) / most}%`; });
  });
  return el('div', {class: 'batches'}, el('h3', {}, 'Rows by how many packets they had'), el('ol', {}, rows));
}

// ---- what was asked for, and where it ran

function tree(value) {
  if (value === null || typeof value !== 'object') return el('span', {class: 'leaf'}, value === null ? 'null' : String(value));
  const entries = Array.isArray(value) ? value.map((v) => ['-', v]) : Object.entries(value);
  if (!entries.length) return el('span', {class: 'leaf'}, Array.isArray(value) ? 'none' : '{}');
  return el('ul', {class: 'tree'}, entries.map(([key, inner]) => el('li', {}, el('b', {}, key === '-' ? '- ' : `${key}: `), tree(inner))));
}

function settingsSection(data) {
  if (!data.settings) return null;
  const {topology, policy, files} = data.settings;
  return el('section', {id: 'settings'}, el('h2', {}, 'Settings'),
    el('dl', {class: 'list'}, Object.entries(files).map(([name, file]) => el('div', {}, el('dt', {}, name), el('dd', {class: 'file'}, file)))),
    el('details', {}, el('summary', {}, 'Topology as it was read'), tree(topology)),
    el('details', {}, el('summary', {}, `Route policy, ${policy.length} ${policy.length === 1 ? 'row' : 'rows'}`),
      table('policy-table', [['line', 'n'], ['packet type'], ['current NF'], ['next NF']],
        policy.map((row) => [`${row.line}`, row.packet_type, row.current_nf, row.next_nf]))));
}

function machineSection(data) {
  if (!data.machine) return null;
  const m = data.machine;
  const M = ['machine'];
  const fact = (name, ...value) => el('div', {}, el('dt', {}, name), el('dd', {}, ...value));
  return el('section', {id: 'machine'}, el('h2', {}, 'Machine'), el('dl', {class: 'list'},
    fact('CPU', m.cpu, ', ', num([...M, 'cores'], 'cores'), ' for this process'), fact('memory', num([...M, 'memory'], 'bytes')),
    fact('kernel', m.kernel), fact('Python', m.python), fact('Hummingbird', m.hummingbird),
    fact('OpenCL', m.opencl === null ? 'none' : m.opencl)));
}
