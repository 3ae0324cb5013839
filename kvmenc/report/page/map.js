"use strict";
// Draws the memory map from counts of cells; single pages are unpacked where they are looked at.
(() => {
  const byId = (id) => document.getElementById(id);
  const facts = JSON.parse(byId("map-facts").textContent);
  const canvas = byId("map");
  const context = canvas.getContext("2d");

  const MOST_ROWS = 32;
  const ROW = 14; // pixels: the upper band, the lower one, and what is between rows
  const UPPER = 8;
  const LOWER = 3;
  const TOP = 12; // where the view lies in the RAMBlock
  const NARROW = 600; // pixels of width

  // Page numbers go to 2**52, beyond what bit operations take: those are for words alone.
  const view = { block: 0, cell: 1, first: 0, cursor: 0 };
  const unpacked = new Map(); // by element id; a promise's place is held by null
  let cells = null;

  const block = () => facts.blocks[view.block];

  async function unpack(id) {
    const text = atob(byId(id).textContent);
    const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
    const packed = new Blob([bytes]).stream();
    const plain = packed.pipeThrough(new DecompressionStream("deflate-raw"));
    return new Uint32Array(await new Response(plain).arrayBuffer());
  }

  // Counts are arrays of four: private, zero, dirty private, dirty shared.

  function ones(word) {
    let it = word - ((word >>> 1) & 0x55555555);
    it = (it & 0x33333333) + ((it >>> 2) & 0x33333333);
    return Math.imul((it + (it >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
  }

  function countBits(bits, from, to) {
    const size = bits.length / 3;
    const counts = [0, 0, 0, 0];
    for (let word = from >>> 5; word * 32 < to; word++) {
      let mask = -1;
      if (word * 32 < from) mask &= -1 << (from & 31);
      if (word * 32 + 32 > to) mask &= -1 >>> (32 - (to & 31));
      const state = bits[word] & mask;
      const dirty = bits[2 * size + word] & mask;
      counts[0] += ones(state);
      counts[1] += ones(bits[size + word] & mask);
      counts[2] += ones(dirty & state);
      counts[3] += ones(dirty & ~state);
    }
    return counts;
  }

  // What is known in advance: start, end and counts of the rows or cells that touch some pages.
  function* known(from, to) {
    const { first_cell, npages, rows } = block();
    if (first_cell === null) {
      let at = 0;
      for (const [pages, ...counts] of rows) {
        if (at < to && at + pages > from) yield [at, at + pages, counts];
        at += pages;
      }
      return;
    }
    for (let i = Math.floor(from / facts.cell_pages); i * facts.cell_pages < to; i++) {
      const at = (first_cell + i) * 4;
      const end = Math.min((i + 1) * facts.cell_pages, npages);
      yield [i * facts.cell_pages, end, cells.subarray(at, at + 4)];
    }
  }

  // Exact where what is known lies inside, or is the same for each of its pages.
  function fromKnown(from, to) {
    const sums = [0, 0, 0, 0];
    let exact = true;
    for (const [start, end, counts] of known(from, to)) {
      const pages = end - start;
      const share = (Math.min(to, end) - Math.max(from, start)) / pages;
      if (share < 1 && counts.some((count) => count && count !== pages)) exact = false;
      counts.forEach((count, i) => { sums[i] += count * share; });
    }
    return { counts: sums, exact };
  }

  // Whole cells, of which a view of everything has very many.
  function sumCells(from, to) {
    const { first_cell } = block();
    const sums = [0, 0, 0, 0];
    const end = first_cell + Math.ceil(to / facts.cell_pages);
    for (let cell = first_cell + from / facts.cell_pages; cell < end; cell++) {
      for (let i = 0; i < 4; i++) sums[i] += cells[cell * 4 + i];
    }
    return { counts: sums, exact: true };
  }

  const stretchId = (page) => `bits-${view.block}-${Math.floor(page / facts.stretch_pages)}`;

  function count(from, to) {
    if (block().first_cell === null) return fromKnown(from, to);
    if (view.cell >= facts.cell_pages) return sumCells(from, to);
    const bits = unpacked.get(stretchId(from));
    if (!bits) return fromKnown(from, to);
    const start = Math.floor(from / facts.stretch_pages) * facts.stretch_pages;
    return { counts: countBits(bits, from - start, to - start), exact: true };
  }

  // Unpack the stretches in view, and forget those that are not.
  function unpackView(end) {
    const wanted = new Set();
    if (block().first_cell !== null && view.cell < facts.cell_pages) {
      const size = facts.stretch_pages;
      for (let at = Math.floor(view.first / size) * size; at < end; at += size) {
        if (byId(stretchId(at))) wanted.add(stretchId(at));
      }
    }
    for (const id of unpacked.keys()) if (!wanted.has(id)) unpacked.delete(id);
    for (const id of wanted) {
      if (unpacked.has(id)) continue;
      unpacked.set(id, null);
      unpack(id).then((bits) => {
        if (!unpacked.has(id)) return;
        unpacked.set(id, bits);
        draw();
      });
    }
  }

  // Geometry.

  function shape() {
    const width = canvas.clientWidth;
    const columns = width < NARROW ? 32 : 64;
    const left = width < NARROW ? 58 : 76;
    const { npages } = block();
    let whole = 1;
    while (whole * columns * MOST_ROWS < npages) whole *= 2;
    view.cell = Math.min(view.cell, whole);
    const line = view.cell * columns;
    const lines = Math.ceil(npages / line);
    const rows = Math.min(MOST_ROWS, lines);
    const last = (lines - rows) * line;
    view.first = Math.max(0, Math.min(Math.floor(view.first / line) * line, last));
    view.cursor = Math.floor(view.cursor / view.cell) * view.cell;
    const end = Math.min(npages, view.first + rows * line);
    return { width, columns, left, whole, line, rows, end, step: (width - left) / columns };
  }

  function placeOf(page, { columns, left, step }) {
    const cell = Math.floor((page - view.first) / view.cell);
    return [left + (cell % columns) * step, TOP + Math.floor(cell / columns) * ROW];
  }

  // Words.

  const grouped = (number) => number.toLocaleString("en-US", { maximumFractionDigits: 0 });

  function sized(bytes) {
    const names = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let i = 0;
    let it = bytes;
    while (it >= 1024 && i < names.length - 1) { it /= 1024; i += 1; }
    return `${Number(it.toPrecision(it >= 1000 ? 4 : 3))} ${names[i]}`;
  }

  function gfnOf(page) {
    const slot = facts.slots.find(
      ([index, start, pages]) => index === view.block && page >= start && page < start + pages);
    return slot ? `, gfn 0x${(slot[3] + page - slot[1]).toString(16)}` : "";
  }

  function whereWords(from, to) {
    const size = to - from > 1 ? `${sized((to - from) * facts.page_size)}, ` : "";
    const pages = to - from > 1
      ? `Pages ${grouped(from)} to ${grouped(to - 1)}` : `Page ${grouped(from)}`;
    const offset = (from * facts.page_size).toString(16);
    return `${pages} (${size}offset 0x${offset}${gfnOf(from)})`;
  }

  function pageWords([secret, zero, dirtyPrivate, dirtyShared]) {
    const { zero_known, dirty_known } = block();
    const state = secret ? "private" : `shared${zero_known ? (zero ? ", zero" : ", not zero") : ""}`;
    const written = dirtyPrivate + dirtyShared ? "written" : "not written";
    return `${state}, ${dirty_known ? written : "not known whether written"}.`;
  }

  // Neither none nor all may be said of what is only nearly so.
  function percent(share) {
    if (share > 0 && share < 1e-4) return "under 0.01 %";
    if (share < 1 && share > 0.9995) return "over 99.9 %";
    return `${Number((100 * share).toPrecision(3))} %`;
  }

  function countWords([secret, zero, dirtyPrivate, dirtyShared], pages) {
    const { zero_known, dirty_known } = block();
    const part = (number) => `${grouped(number)} (${percent(number / pages)})`;
    const zeros = zero_known ? `, of which zero ${grouped(zero)}` : "";
    const written = dirty_known
      ? `Written: ${grouped(dirtyPrivate)} private, ${grouped(dirtyShared)} shared.`
      : "Which were written is not known.";
    return `private ${part(secret)}, shared ${part(pages - secret)}${zeros}. ${written}`;
  }

  function meanWords([secret, zero, dirtyPrivate, dirtyShared], pages) {
    const { zero_known, dirty_known } = block();
    const part = (number) => percent(number / pages);
    const zeros = zero_known ? `, zero ${part(zero)}` : "";
    const written = dirty_known
      ? `; written ${part(dirtyPrivate)} private, ${part(dirtyShared)} shared` : "";
    return `private ${part(secret)}, shared ${part(pages - secret)}${zeros}${written}.`;
  }

  function readOut() {
    const from = view.cursor;
    const pages = Math.min(view.cell, block().npages - from);
    const { counts, exact } = count(from, from + pages);
    const why = unpacked.has(stretchId(from)) ? "being unpacked" : "single pages are not here";
    const state = !exact ? `on average (${why}): ${meanWords(counts, pages)}`
      : pages === 1 ? pageWords(counts) : countWords(counts, pages);
    const text = `${whereWords(from, from + pages)}: ${state}`;
    const readout = byId("map-readout");
    if (readout.textContent !== text) readout.textContent = text; // or it is read aloud again
  }

  // Pictures.

  function drawBand(x, y, width, height, parts, pages) {
    let at = x;
    for (const [number, colour] of parts) {
      if (!number) continue;
      const part = Math.max(1, width * number / pages); // a single page of many is to be seen
      context.fillStyle = colour;
      context.fillRect(Math.min(at, x + width - part), y, part, height);
      at += width * number / pages;
    }
  }

  function drawCell(from, to, geometry, colours) {
    const { counts: [secret, zero, dirtyPrivate, dirtyShared], exact } = count(from, to);
    const [x, y] = placeOf(from, geometry);
    const width = geometry.step - (geometry.step > 5 ? 1 : 0.5);
    const pages = to - from;
    const states = [
      [secret, colours.private], [pages - secret - zero, colours.shared], [zero, colours.zero]];
    context.fillStyle = colours.raised;
    context.fillRect(x, y + UPPER + 1, width, LOWER);
    context.globalAlpha = exact ? 1 : 0.5;
    drawBand(x, y, width, UPPER, states, pages);
    const written = [[dirtyPrivate, colours.private], [dirtyShared, colours.shared]];
    drawBand(x, y + UPPER + 1, width, LOWER, written, pages);
    context.globalAlpha = 1;
  }

  function drawFrame(geometry, colours) {
    const { width, left, line, rows, end } = geometry;
    const { npages } = block();
    const full = width - left;
    context.fillStyle = colours.rule;
    context.fillRect(left, 2, full, 4);
    context.fillStyle = colours.link;
    const part = Math.max(3, full * (end - view.first) / npages);
    context.fillRect(left + Math.min(full * view.first / npages, full - part), 2, part, 4);
    context.fillStyle = colours.quiet;
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "top";
    for (let row = 0; row < rows; row += 4) {
      const offset = (view.first + row * line) * facts.page_size;
      context.fillText(sized(offset), 0, TOP + row * ROW);
    }
  }

  function drawCursor(geometry, colours) {
    const [x, y] = placeOf(view.cursor, geometry);
    context.strokeStyle = colours.ink;
    context.lineWidth = 2;
    context.strokeRect(x - 1.5, y - 1.5, geometry.step + 2, UPPER + LOWER + 4);
  }

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const names = ["private", "shared", "zero", "raised", "rule", "quiet", "ink", "link"];
    return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`)]));
  }

  function draw() {
    const geometry = shape();
    const ratio = window.devicePixelRatio || 1;
    const height = TOP + geometry.rows * ROW + 2;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(geometry.width * ratio);
    canvas.height = Math.round(height * ratio);
    context.scale(ratio, ratio);
    const palette = colours();
    unpackView(geometry.end);
    drawFrame(geometry, palette);
    for (let from = view.first; from < geometry.end; from += view.cell) {
      drawCell(from, Math.min(from + view.cell, geometry.end), geometry, palette);
    }
    drawCursor(geometry, palette);
    readOut();
  }

  // Moving.

  function moveTo(page) {
    const { line, rows } = shape();
    view.cursor = Math.max(0, Math.min(page, block().npages - 1));
    const row = Math.floor(view.cursor / line) * line;
    view.first = Math.min(Math.max(view.first, row - (rows - 1) * line), row);
    draw();
  }

  function zoomTo(cell) {
    view.cell = Math.max(1, cell);
    const { line, rows } = shape();
    view.first = (Math.floor(view.cursor / line) - Math.floor(rows / 2)) * line;
    draw();
  }

  function turn(by) {
    const { line, rows } = shape();
    view.first += by * rows * line;
    moveTo(view.cursor + by * rows * line);
  }

  function choose(index) {
    Object.assign(view, { block: index, cell: Infinity, first: 0, cursor: 0 });
    draw();
  }

  const inwards = () => zoomTo(Math.floor(view.cell / 4));
  const outwards = () => zoomTo(view.cell * 4);
  const whole = () => zoomTo(Infinity);
  const keys = {
    ArrowLeft: () => moveTo(view.cursor - view.cell),
    ArrowRight: () => moveTo(view.cursor + view.cell),
    ArrowUp: () => moveTo(view.cursor - shape().line),
    ArrowDown: () => moveTo(view.cursor + shape().line),
    PageUp: () => turn(-1),
    PageDown: () => turn(1),
    Home: () => moveTo(0),
    End: () => moveTo(block().npages - 1),
    "+": inwards,
    "=": inwards,
    "-": outwards,
    0: whole,
  };

  function pageAt(event) {
    const geometry = shape();
    const box = canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - geometry.left) / geometry.step);
    const row = Math.floor((event.clientY - box.top - TOP) / ROW);
    const inside = column >= 0 && column < geometry.columns && row >= 0 && row < geometry.rows;
    const page = view.first + (row * geometry.columns + column) * view.cell;
    return inside && page < geometry.end ? page : null;
  }

  function goTo(input) {
    const text = input.value.trim().replaceAll(",", "");
    const good = /^(\d+|0x[0-9a-f]+)$/i.test(text) && Number(text) < block().npages;
    input.setAttribute("aria-invalid", String(!good && text !== ""));
    if (!good) return;
    view.cursor = Number(text);
    zoomTo(1);
  }

  function listen() {
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || !keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
    canvas.addEventListener("click", (event) => {
      const page = pageAt(event);
      if (page !== null) moveTo(page);
    });
    canvas.addEventListener("dblclick", (event) => (event.shiftKey ? outwards() : inwards()));
    byId("map-in").addEventListener("click", inwards);
    byId("map-out").addEventListener("click", outwards);
    byId("map-whole").addEventListener("click", whole);
    byId("map-back").addEventListener("click", () => turn(-1));
    byId("map-on").addEventListener("click", () => turn(1));
    byId("map-block").addEventListener("change", (event) => choose(Number(event.target.value)));
    byId("map-page").addEventListener("change", (event) => goTo(event.target));
    for (const media of ["(prefers-color-scheme: dark)", "print"]) {
      window.matchMedia(media).addEventListener("change", draw);
    }
    let width = canvas.clientWidth;
    new ResizeObserver(() => {
      if (canvas.clientWidth === width) return;
      width = canvas.clientWidth;
      draw();
    }).observe(canvas);
  }

  // The detail stands behind this script, so that the map need not wait for it.
  document.addEventListener("DOMContentLoaded", () => cells && draw());
  unpack("map-cells").then((counts) => {
    cells = counts;
    byId("map-box").hidden = false;
    choose(Number(byId("map-block").value));
    performance.mark("map-shown");
    listen();
  }).catch(() => { byId("map-failed").hidden = false; });
})();
