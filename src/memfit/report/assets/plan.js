"use strict";
// Draws a placement: the load over time, and below it every buffer as a rectangle of time x bytes. Drag to zoom in.
(() => {
  const [begin, end] = data.time;
  const view = { t0: begin, t1: Math.max(end, begin + 1) };
  const zooms = new Map(); // panel -> [low, high) bytes shown
  const LEFT = 74, RIGHT = 14, GAP = 26, LOAD = 130, BOTTOM = 34;
  const timeWord = data.by_operation ? "instant (the steps of the program, in order)" : "time (instants of the table)";

  head([data.target, number(data.buffers) + " buffers", "planned in " + seconds(data.seconds) + " of CPU time"]);
  const saved = data.total ? Math.round(100 * (1 - data.peak / data.total)) : 0;
  cards([
    ["memory needed (peak)", bytes(data.peak), number(data.peak) + " bytes, by " + data.strategy],
    ["lower bound", bytes(data.bound), "nothing can be below: " + data.bound_reason],
    ["how good", data.optimal ? "optimal" : data.strategies[0][2] + " above", data.optimal ? "proved: peak = lower bound" : "the lower bound; the optimum lies between", data.optimal ? "good" : ""],
    ["without sharing", bytes(data.total), "a place of its own for every buffer; the plan needs " + saved + " % less"],
    ...(data.capacity === null ? [] : [["capacity", bytes(data.capacity), data.fits ? "kept" : data.fits === false ? "cannot be kept (proved)" : "not kept, not proved impossible", data.fits ? "good" : "bad"]]),
  ]);

  data.panels.forEach((panel, index) => draw(panel, data.panels.length > 1 ? "Memory " + panel.name : "Where every buffer lies", index));
  tables();

  function draw(panel, title, index) {
    const canvas = el("canvas", {}), tip = el("div", { class: "tip" });
    const box = el("div", { class: "plan" }, canvas, tip);
    const whole = el("button", { type: "button", onclick: () => { view.t0 = begin; view.t1 = Math.max(end, begin + 1); zooms.clear(); redraw(); } }, "Show all");
    const keys = data.keys.map((key, k) => {
      const mark = el("i", { class: "swatch" });
      const paint = () => { mark.style.background = key[dark() ? 2 : 1]; };
      redraws.push(paint); paint();
      return panel.key.includes(k) ? el("span", {}, mark, key[0]) : null;
    });
    const one = data.panels.length === 1;
    page.append(el("section", {},
      el("div", { class: "tools" }, el("h2", {}, title), el("span", {}, whole)),
      index ? null : el("p", { class: "how" }, "Time runs to the right, addresses upwards. Each rectangle is one buffer: as wide as it lives, as high as its bytes, at its offset. " +
        (data.shared ? "Two rectangles overlap only where the program lets one buffer take over another's bytes (" + number(data.shared) + " pairs may). " : "Two rectangles never overlap, so no byte serves two buffers at once. ") + "The highest rectangle is the memory needed. " +
        "The curve above is the load: the bytes alive at each instant, wherever they lie. Its highest point is the lower bound. Point at a rectangle for its name; drag to zoom in."),
      box,
      el("div", { class: "legend" }, el("span", {}, "Colour: " + data.coloured_by + ":"), keys,
        panel.merged_count ? el("span", {}, el("i", { class: "swatch", style: { background: "#8f8f8f" } }), number(panel.merged_count) + " buffers too small to draw one by one") : null,
        el("span", {}, el("i", { class: "line" }), "peak"),
        one ? el("span", {}, el("i", { class: "line dash" }), "lower bound") : null,
        panel.capacity !== null ? el("span", {}, el("i", { class: "line limit" }), "capacity") : null)));

    let hovered = -1, dragged = null;
    const tall = () => Math.max(300, Math.min(560, innerHeight * 0.6));
    const shown = () => zooms.get(index) || [0, Math.max(panel.peak, panel.capacity !== null && panel.capacity < panel.peak * 1.5 ? panel.capacity : 0, 1) * 1.04];
    const frame = () => {
      const width = box.clientWidth, high = tall();
      return { width, x0: LEFT, x1: width - RIGHT, load0: 16, load1: 16 + LOAD, y0: 16 + LOAD + GAP, y1: 16 + LOAD + GAP + high };
    };
    const toX = (f, t) => f.x0 + (t - view.t0) / (view.t1 - view.t0) * (f.x1 - f.x0);
    const toY = (f, b) => { const [lo, hi] = shown(); return f.y1 - (b - lo) / (hi - lo) * (f.y1 - f.y0); };
    const toTime = (f, x) => view.t0 + (x - f.x0) / (f.x1 - f.x0) * (view.t1 - view.t0);
    const toBytes = (f, y) => { const [lo, hi] = shown(); return lo + (f.y1 - y) / (f.y1 - f.y0) * (hi - lo); };

    function paint() {
      const f = frame(), scale = devicePixelRatio || 1, g = canvas.getContext("2d");
      canvas.width = f.width * scale; canvas.height = (f.y1 + BOTTOM) * scale; canvas.style.height = f.y1 + BOTTOM + "px";
      g.setTransform(scale, 0, 0, scale, 0, 0);
      g.clearRect(0, 0, f.width, f.y1 + BOTTOM);
      g.font = "12px system-ui, 'DejaVu Sans', sans-serif";
      axes(g, f);
      clipped(g, f.x0, f.y0, f.x1 - f.x0, f.y1 - f.y0, () => rectangles(g, f));
      clipped(g, f.x0, f.load0 - 6, f.x1 - f.x0, LOAD + 6, () => load(g, f));
      lines(g, f);
      if (dragged) {
        g.fillStyle = "rgba(127,127,127,.25)"; g.strokeStyle = variable("--soft"); g.lineWidth = 1;
        g.fillRect(dragged.x, dragged.y, dragged.w, dragged.h); g.strokeRect(dragged.x, dragged.y, dragged.w, dragged.h);
      }
    }
    function clipped(g, x, y, w, h, work) { g.save(); g.beginPath(); g.rect(x, y, w, h); g.clip(); work(); g.restore(); }
    function axes(g, f) {
      g.fillStyle = variable("--soft"); g.strokeStyle = variable("--line"); g.lineWidth = 1;
      g.textAlign = "right"; g.textBaseline = "middle";
      for (const b of ticks(shown()[0], shown()[1], 6, true)) {
        const y = Math.round(toY(f, b)) + 0.5;
        g.beginPath(); g.moveTo(f.x0, y); g.lineTo(f.x1, y); g.stroke(); g.fillText(bytes(b), f.x0 - 8, y);
      }
      g.fillText(bytes(loadTop()), f.x0 - 8, f.load0 + 4); g.fillText("0 B", f.x0 - 8, f.load1);
      g.beginPath(); g.moveTo(f.x0, f.load1 + 0.5); g.lineTo(f.x1, f.load1 + 0.5); g.stroke();
      g.textAlign = "center"; g.textBaseline = "top";
      for (const t of ticks(view.t0, view.t1, Math.max(3, Math.floor((f.x1 - f.x0) / 110)), false)) g.fillText(number(t), toX(f, t), f.y1 + 5);
      g.fillText(timeWord, (f.x0 + f.x1) / 2, f.y1 + 19);
      g.textAlign = "left"; g.textBaseline = "bottom"; g.fillStyle = variable("--ink");
      g.fillText("load: bytes alive", f.x0 + 2, f.load0 - 2);
      g.fillText("placement: offset of each buffer", f.x0 + 2, f.y0 - 4);
    }
    function loadTop() { return Math.max(1, ...panel.load.bytes); }
    function rectangles(g, f) {
      const side = dark() ? 2 : 1, wide = f.x1 - f.x0;
      g.fillStyle = dark() ? "#6f6f6f" : "#9c9c9c";
      for (let i = 0; i < panel.merged.length; i += 4) {
        const x = toX(f, panel.merged[i]), y = toY(f, panel.merged[i + 3]);
        g.fillRect(x, y, Math.max(toX(f, panel.merged[i + 1]) - x, 0.7), Math.max(toY(f, panel.merged[i + 2]) - y, 0.7));
      }
      g.strokeStyle = variable("--panel"); g.lineWidth = 0.8;
      for (let i = 0; i < panel.left.length; i++) {
        const x = toX(f, panel.left[i]), w = toX(f, panel.left[i] + panel.width[i]) - x;
        const y = toY(f, panel.low[i] + panel.height[i]), h = toY(f, panel.low[i]) - y;
        if (x > f.x1 || x + w < f.x0 || y > f.y1 || y + h < f.y0) continue;
        g.fillStyle = data.keys[panel.key[i]][side];
        g.fillRect(x, y, Math.max(w, 0.6), Math.max(h, 0.6));
        if (w > 3 && h > 3) g.strokeRect(x, y, w, h);
        if (w > 46 && h > 14 && wide > 300) name(g, f, i, x, y, w, h);
      }
      if (hovered >= 0) {
        g.strokeStyle = variable("--ink"); g.lineWidth = 2;
        for (let i = 0; i < panel.left.length; i++) if (panel.row[i] === hovered) {
          const x = toX(f, panel.left[i]), y = toY(f, panel.low[i] + panel.height[i]);
          g.strokeRect(x, y, Math.max(toX(f, panel.left[i] + panel.width[i]) - x, 1), Math.max(toY(f, panel.low[i]) - y, 1));
        }
      }
    }
    function name(g, f, i, x, y, w, h) {
      const left = Math.max(x, f.x0), right = Math.min(x + w, f.x1), row = panel.row[i];
      const label = data.labels[data.label[row]] || data.names[row];
      const room = Math.floor((right - left - 8) / 6.6);
      if (room < 4) return;
      g.fillStyle = bright(data.keys[panel.key[i]][dark() ? 2 : 1]) ? "#1d2127" : "#fff"; g.textAlign = "left"; g.textBaseline = "middle";
      g.fillText(label.length <= room ? label : "…" + label.slice(label.length - room + 1), left + 4, Math.max(y, f.y0) + Math.min(h, f.y1 - y) / 2);
    }
    function load(g, f) {
      const top = loadTop(), at = (b) => f.load1 - b / top * (LOAD - 6);
      g.beginPath(); g.moveTo(toX(f, panel.load.times[0]), f.load1);
      for (let i = 0; i + 1 < panel.load.times.length; i++) {
        const y = at(panel.load.bytes[i]);
        g.lineTo(toX(f, panel.load.times[i]), y); g.lineTo(toX(f, panel.load.times[i + 1]), y);
      }
      g.lineTo(toX(f, panel.load.times.at(-1)), f.load1); g.closePath();
      g.fillStyle = dark() ? "rgba(150,175,210,.35)" : "rgba(63,111,181,.25)"; g.fill();
      g.strokeStyle = dark() ? "#9fb8dc" : "#3f6fb5"; g.lineWidth = 1.2; g.stroke();
      const x = toX(f, data.instant + 0.5);
      g.strokeStyle = variable("--good"); g.setLineDash([3, 3]); g.lineWidth = 1;
      g.beginPath(); g.moveTo(x, f.load0 - 6); g.lineTo(x, f.load1); g.stroke(); g.setLineDash([]);
    }
    function lines(g, f) {
      const [lo, hi] = shown(), right = f.x1 - 4;
      const marks = [[panel.peak, "--ink", [], "peak " + bytes(panel.peak)]];
      if (one && data.optimal) marks[0] = [panel.peak, "--good", [], "peak = lower bound " + bytes(panel.peak) + " (proved optimal)"];
      else if (one) marks.push([data.bound, "--good", [7, 4], "lower bound " + bytes(data.bound)]);
      if (panel.capacity !== null) marks.push([panel.capacity, "--bad", [2, 3], "capacity " + bytes(panel.capacity)]);
      let taken = -1e9;
      for (const [b, ink, dash, word] of marks.sort((a, c) => c[0] - a[0])) {
        if (b < lo || b > hi) continue;
        const y = toY(f, b);
        g.strokeStyle = g.fillStyle = variable(ink); g.lineWidth = 2; g.setLineDash(dash);
        g.beginPath(); g.moveTo(f.x0, y); g.lineTo(f.x1, y); g.stroke(); g.setLineDash([]);
        g.textAlign = "left"; g.textBaseline = "bottom";
        const limit = ink === "--bad", line = limit ? y - 3 : Math.max(y - 3, taken + 15), size = g.measureText(word).width;
        const at = limit ? f.x0 + 6 : right - size; // the capacity is named at the other end: it often is the peak
        if (!limit) taken = line;
        g.fillStyle = variable("--panel"); g.globalAlpha = 0.85; g.fillRect(at - 4, line - 14, size + 8, 15); g.globalAlpha = 1;
        g.fillStyle = variable(ink); g.fillText(word, at, line);
      }
    }

    function under(f, x, y) {
      const t = toTime(f, x), b = toBytes(f, y);
      if (x < f.x0 || x > f.x1 || y < f.y0 || y > f.y1) return -1;
      for (let i = panel.left.length - 1; i >= 0; i--)
        if (panel.left[i] <= t && t < panel.left[i] + panel.width[i] && panel.low[i] <= b && b < panel.low[i] + panel.height[i]) return i;
      return -1;
    }
    canvas.addEventListener("pointermove", (event) => {
      const f = frame(), x = event.offsetX, y = event.offsetY;
      if (dragged && event.buttons) {
        dragged.w = x - dragged.x; dragged.h = y - dragged.y; tip.style.display = "none"; paint(); return;
      }
      const i = under(f, x, y), row = i < 0 ? -1 : panel.row[i];
      if (row !== hovered) { hovered = row; paint(); }
      if (i < 0) { tip.style.display = "none"; return; }
      const label = data.labels[data.label[row]];
      tip.replaceChildren(el("b", {}, label || data.names[row]), el("table", {}, [
        ["id", data.names[row]], ["size", bytes(data.sizes[row]) + " (" + number(data.sizes[row]) + " bytes)"],
        ["bytes", "[" + number(panel.low[i]) + ", " + number(panel.low[i] + panel.height[i]) + ")"],
        ["lives", "[" + number(panel.left[i]) + ", " + number(panel.left[i] + panel.width[i]) + ")"],
        ["kind", data.keys[panel.key[i]][0]],
      ].map(([k, v]) => el("tr", {}, el("td", { class: "soft" }, k), el("td", {}, v)))));
      tip.style.display = "block";
      tip.style.left = (x < f.width / 2 ? x + 16 : Math.max(0, x - tip.offsetWidth - 16)) + "px";
      tip.style.top = Math.min(y + 12, f.y1 - tip.offsetHeight) + "px";
    });
    canvas.addEventListener("pointerleave", () => { hovered = -1; tip.style.display = "none"; if (!dragged) paint(); });
    canvas.addEventListener("pointerdown", (event) => { dragged = { x: event.offsetX, y: event.offsetY, w: 0, h: 0 }; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointerup", () => {
      const f = frame(), d = dragged; dragged = null;
      if (d && Math.abs(d.w) > 8 && Math.abs(d.h) > 8) {
        const clamp = (v, lo, hi) => Math.min(Math.max(v, lo), hi);
        const ts = [d.x, d.x + d.w].map((x) => toTime(f, clamp(x, f.x0, f.x1))).sort((a, b) => a - b);
        if (ts[1] - ts[0] >= 0.5) { [view.t0, view.t1] = ts; }
        if (Math.max(d.y, d.y + d.h) > f.y0) {
          const bs = [d.y, d.y + d.h].map((y) => toBytes(f, clamp(y, f.y0, f.y1))).sort((a, b) => a - b);
          if (bs[1] - bs[0] >= 1) zooms.set(index, bs);
        }
        redraw();
      } else paint();
    });
    redraws.push(paint);
    new ResizeObserver(paint).observe(box);
    paint();
  }

  function bright(hex) {
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return 0.299 * r + 0.587 * g + 0.114 * b > 140;
  }
  function ticks(low, high, count, binary) {
    const rough = (high - low) / count, found = [];
    let step = 1;
    if (binary) { while (step < rough) step *= 2; }
    else { const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1))); step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= rough) || 1; }
    for (let t = Math.ceil(low / step) * step; t <= high; t += step) found.push(t);
    return found;
  }

  function tables() {
    const shown = data.strategies;
    page.append(el("section", {}, el("h2", {}, "Strategies, best first"),
      tableOf([["strategy"], ["peak", "number"], ["lower bound", "number"], ["above it", "number"], ["CPU time", "number"], [""]],
        shown.map(([name, peak, gap, time, optimal]) => [name, bytes(peak), bytes(data.bound), gap, seconds(time), optimal ? "optimal" : ""]))));
    const what = data.by_operation ? "what it is" : "label";
    const rows = data.alive.map(([name, label, size, category, lower, upper, offset]) => [name, label, bytes(size), number(offset), "[" + number(lower) + ", " + number(upper) + ")"]);
    if (rows.length) page.append(el("section", {}, el("h2", {}, "Largest buffers alive when the load peaks, at instant " + number(data.instant) + (data.at ? " in " + data.at : "")),
      el("div", { class: "scroll" }, tableOf([["buffer"], [what, "name"], ["size", "number"], ["offset", "number"], ["lives", "number"]], rows))));
    if (data.infeasible.length) page.append(el("section", {}, el("h2", {}, "These buffers alone cannot fit the capacity"), el("p", { class: "path" }, data.infeasible.join(", "))));
    if (data.notes.length) page.append(el("section", {}, el("h2", {}, "Notes"), el("ul", {}, data.notes.map((note) => el("li", {}, note)))));
    page.append(el("footer", {}, "All bytes are projected: computed from lifetimes and sizes, before anything runs. Written by memfit; this page fetches nothing."));
  }
})();
