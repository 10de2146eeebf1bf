// SPDX-License-Identifier: BSD-3-Clause
// Numbers for people: three digits, and always a unit. What has no source is "-", never 0.

const NONE = '-';
const grouped = new Intl.NumberFormat('en-US', {maximumFractionDigits: 0});

function digits(x) {
  const size = Math.abs(x);
  if (x === 0) return '0';
  if (size >= 99.95) return grouped.format(x);
  if (size >= 9.995) return x.toFixed(1);
  return size >= 0.00995 ? x.toFixed(2) : x.toPrecision(2);
}

/** With the prefix that leaves one to three digits before the point. */
function prefixed(x, unit, steps) {
  const found = steps.find(([factor]) => Math.abs(x) >= 0.9995 * factor) || steps[steps.length - 1];
  return `${digits(x / found[0])} ${found[1]}${unit}`.replace(/  +/, ' ').trim();
}

const SI = [[1e9, 'G'], [1e6, 'M'], [1e3, 'k'], [1, '']];
const TIME = [[1e6, 's'], [1e3, 'ms'], [1, '\u00b5s'], [1e-3, 'ns']];
const BINARY = [[2 ** 40, 'TiB'], [2 ** 30, 'GiB'], [2 ** 20, 'MiB'], [2 ** 10, 'KiB'], [1, 'bytes']];

const FORMATS = {
  packets: (n) => `${grouped.format(n)} ${n === 1 ? 'packet' : 'packets'}`,
  count: (n) => prefixed(n, '', SI),
  rows: (n) => `${grouped.format(n)} ${n === 1 ? 'row' : 'rows'}`,
  times: (n) => `${grouped.format(n)} ${n === 1 ? 'time' : 'times'}`,
  groups: (n) => `${grouped.format(n)} ${n === 1 ? 'group' : 'groups'}`,
  lanes: (n) => `${grouped.format(n)} ${n === 1 ? 'lane' : 'lanes'}`,
  cores: (n) => `${grouped.format(n)} ${n === 1 ? 'core' : 'cores'}`,
  samples: (n) => `${grouped.format(n)} ${n === 1 ? 'sample' : 'samples'}`,
  pps: (x) => rate(x, 'pps'),
  rps: (x) => rate(x, ' rows/s'),
  sps: (x) => rate(x, ' slots/s'),
  gbps: (x) => prefixed(x * 1e9, 'bit/s', SI),
  ppr: (x) => `${digits(x)} packets a row`,
  us: (x) => prefixed(x, '', TIME),
  percent: (x) => `${digits(100 * x)} %`,
  busy: (x) => `${whole(100 * x)} % busy`,
  bytes: (n) => prefixed(n, '', BINARY),
  seconds: duration,
  version: (n) => `version ${n}`,
  dropped: (n) => `${n < 1e5 ? grouped.format(n) : prefixed(n, '', SI)} dropped`,
};

const rate = (x, unit) => (x > 0 && x < 0.01 ? `<0.01 ${unit.trim()}` : prefixed(x, unit, SI));

/** Without digits that say nothing, but something is never 0. */
const whole = (x) => (x > 0 && x < 0.5 ? '<1' : x.toFixed(0));

/** A length of time. */
function duration(s) {
  if (s < 60) return prefixed(s * 1e6, '', TIME);
  const parts = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  let rest = Math.round(s);
  const words = [];
  for (const [size, name] of parts) {
    if (rest >= size && words.length < 2) words.push(`${Math.floor(rest / size)} ${name}`);
    rest %= size;
  }
  return words.join(' ');
}

/** A moment, in unix seconds. */
function moment(s) {
  if (!Number.isFinite(s)) return NONE;
  return new Date(s * 1000).toISOString().replace('T', ' ').slice(0, 19) + ' UTC';
}

/** For a scale, whose numbers are round. */
const axisText = (value, kind) => text(value, kind).replace(/\.(\d*?)0+(?=\D|$)/, (_, kept) => (kept ? `.${kept}` : ''));

const clock = (s) => moment(s).slice(11);

function text(value, kind) {
  if (value === null || value === undefined) return NONE;
  if (typeof value !== 'number') return String(value);
  return Number.isFinite(value) ? FORMATS[kind](value) : NONE;
}
