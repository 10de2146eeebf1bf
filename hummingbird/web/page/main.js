// SPDX-License-Identifier: BSD-3-Clause
// Puts the page together.

const constants = JSON.parse(document.getElementById('constants').textContent);
const state = {data: JSON.parse(document.getElementById('data').textContent), series: null, shape: null, frame: null, chosen: null};

function build() {
  const {data} = state;
  document.title = `${data.status.title} - Hummingbird${data.live ? ' live' : ''}`;
  const open = [...document.querySelectorAll('details[open]')].map((d) => d.parentElement.id);
  forget();
  cursor.watchers.length = 0;
  cursor.index = null;
  document.getElementById('page').replaceChildren(...[
    headSection, balanceSection, runsSection, graphSection, timeSection, dropSection, latencySection, deviceSection,
    portSection, nfSection, chainSection, counterSection, settingsSection, machineSection, footSection,
  ].map((make) => make(data)).filter((section) => section));
  open.forEach((id) => document.querySelectorAll(`#${id} details`).forEach((d) => { d.open = true; }));
  refresh(data);
}

function footSection(data) {
  return el('footer', {}, el('p', {}, `Hummingbird ${constants.version}. pps: packets per second; bit/s counts frames without their checksum. `,
    data.live ? 'The same as JSON: status.json.' : 'All numbers stand in this file as JSON, in the element with the id "data".'));
}

let width = 0;
let waiting = false;
new ResizeObserver(() => {
  const now = document.documentElement.clientWidth;
  if (now === width || waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    width = now;
    if (state.data) refresh(state.data);
  });
}).observe(document.documentElement);

addEventListener('beforeprint', () => document.querySelectorAll('details').forEach((d) => { d.open = true; }));

if (state.data) {
  state.data.live = false;
  state.data.series.start = 0;
  build();
} else {
  goLive();
}

window.hummingbird = {addSample, state, poll, ask, nextAfter, stop}; // for tests, and for the curious
