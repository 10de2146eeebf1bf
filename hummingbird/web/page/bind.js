// SPDX-License-Identifier: BSD-3-Clause
// Elements, and numbers in them that follow the data: made once, and from then on only their text
// changes. Names from the data get onto the page as text nodes and attributes alone.

const SVG = 'http://www.w3.org/2000/svg';
let bound = []; // [element, path, kind, last value]
let drawn = []; // functions that draw anew

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined) element.append(child);
  }
  return element;
}

const el = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
const svg = (name, attributes, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);

/** The value at a path; a sum over it if it is a dictionary or list of numbers. */
function at(data, path) {
  let value = data;
  for (const key of path) {
    if (value === null || value === undefined) return null;
    value = Object.prototype.hasOwnProperty.call(value, key) ? value[key] : null;
  }
  return typeof value === 'object' && value !== null ? total(value) : value;
}

function total(values) {
  return Object.values(values).reduce((sum, x) => sum + x, 0);
}

function bind(element, path, kind) {
  element.setAttribute('data-path', JSON.stringify(path));
  element.setAttribute('data-kind', kind);
  bound.push([element, path, kind, undefined]);
  return element;
}

/** A number or word of the data. */
const num = (path, kind, attributes) => bind(el('span', attributes), path, kind);
const svgNum = (path, kind, attributes) => bind(svg('text', attributes), path, kind);

/** Call `draw` now and whenever the data or the width have changed. */
function whenever(draw) {
  drawn.push(draw);
}

function refreshNumbers(data) {
  for (const entry of bound) {
    const [element, path, kind, last] = entry;
    const value = at(data, path);
    if (value === last) continue;
    entry[3] = value;
    element.textContent = text(value, kind);
    element.setAttribute('data-value', JSON.stringify(value));
  }
}

function refresh(data) {
  refreshNumbers(data);
  for (const draw of drawn) draw(data);
}

/** Before what is in an element is replaced. */
function forgetIn(holder) {
  bound = bound.filter(([element]) => !holder.contains(element));
}

function forget() {
  bound = [];
  drawn = [];
}
