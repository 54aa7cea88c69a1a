"use strict";
// Draws the object in #data. Everything a user named is set as text, never as markup. Computes no figure of its own.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const page = document.getElementById("page");
  const root = document.documentElement;
  const redraws = [];

  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  function bytes(n) {
    if (n === null || n === undefined) return "–";
    let v = Math.abs(n), u = 0;
    while (v >= 1024 && u < 4) { v /= 1024; u++; }
    const text = u ? v.toFixed(v < 10 ? 2 : v < 100 ? 1 : 0) : String(Math.trunc(v));
    return (n < 0 ? "−" : "") + text + " " + units[u];
  }
  function seconds(s) {
    if (s === null || s === undefined) return "–";
    const v = Math.abs(s), sign = s < 0 ? "−" : "";
    if (v === 0) return "0 s";
    if (v < 1e-3) return sign + (v * 1e6).toFixed(0) + " µs";
    if (v < 1) return sign + Number((v * 1e3).toPrecision(3)) + " ms";
    return v < 60 ? sign + Number(v.toPrecision(3)) + " s" : sign + Math.floor(v / 60) + " min " + Math.floor(v % 60) + " s";
  }
  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "class") node.className = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "style") Object.assign(node.style, value);
      else if (value !== null && value !== undefined) node.setAttribute(name, value);
    }
    for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
    return node;
  }
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const colour = (category) => (data.colours[category] || ["#8f8f8f", "#a8a8a8"])[dark() ? 1 : 0];
  const variable = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  function redraw() { for (const draw of redraws) draw(); }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  function swatch(category) {
    const node = el("i", { class: "swatch" });
    const paint = () => { node.style.background = colour(category); };
    redraws.push(paint); paint();
    return node;
  }

  // ---- head ----
  page.replaceChildren();
  const theme = el("button", { type: "button", onclick: () => { root.dataset.theme = dark() ? "light" : "dark"; redraw(); } }, "Light / dark");
  const facts = [data.target, data.device && "on " + data.device, data.seconds !== undefined && seconds(data.seconds)].filter(Boolean);
  page.append(el("header", {},
    el("div", {}, el("div", { class: "soft path" }, "memfit " + data.verb + " · " + facts.join(" · ")), el("h1", {}, data.headline)), theme));
  function cards(items) { page.append(el("div", { class: "cards" }, items.map(([name, value, detail, tone]) =>
    el("div", { class: "card" }, el("small", {}, name), el("b", { class: tone || "" }, value), el("small", {}, detail || " "))))); }
  if (data.fit) {
    const f = data.fit, peak = (side) => side.measured_peak ?? side.projected_peak;
    const how = (side) => side.measured_peak !== null ? "measured" : "projected";
    cards([
      ["budget", bytes(f.budget), data.fits ? "kept" : "not kept", data.fits ? "good" : "bad"],
      ["peak before", bytes(peak(f.baseline)), how(f.baseline)],
      ["peak after", bytes(peak(f.fitted)), how(f.fitted) + (peak(f.baseline) ? ", " + Math.round(100 * peak(f.fitted) / peak(f.baseline)) + " % of before" : "")],
      ["step time", f.overhead === null ? "–" : f.overhead.toFixed(2) + "×", seconds(f.baseline.step_seconds) + " → " + seconds(f.fitted.step_seconds)],
    ]);
  } else if (data.peaks) {
    const meaning = { live: "bytes of tensors that exist", allocated: "after the allocator's rounding", reserved: "asked of the system", resident: "of the whole process" };
    const fits = data.fits === null || data.fits === undefined ? [] : [["fits", data.fits ? "yes" : "no", data.chart && data.chart.capacity ? "in " + bytes(data.chart.capacity) : "", data.fits ? "good" : "bad"]];
    if (data.largest && data.largest.value !== undefined) fits.push(["largest " + (data.largest.setting || "batch") + " that fits", String(data.largest.value), data.largest.value && data.largest.peak ? "peak " + bytes(data.largest.peak) : ""]);
    cards(fits.concat(Object.entries(data.peaks).map(([name, p]) => ["peak " + name, bytes(p.bytes),
      p.interval.length && p.interval[0] !== p.interval[1] ? bytes(p.interval[0]) + " to " + bytes(p.interval[1]) : meaning[name]])));
  }

  // ---- charts ----
  const binary = []; for (let p = 0; p < 45; p++) binary.push(2 ** p);
  const hovered = (u, tip, fill) => {
    const i = u.cursor.idx;
    if (i === null || i === undefined || u.cursor.left < 0) { tip.style.display = "none"; return; }
    tip.replaceChildren(...fill(i));
    tip.style.display = "block";
    const left = u.cursor.left + u.over.offsetLeft, half = u.over.offsetLeft + u.over.clientWidth / 2;
    tip.style.left = left < half ? left + 18 + "px" : Math.max(left - tip.offsetWidth - 18, 0) + "px";
    tip.style.top = Math.max(Math.min(u.cursor.top, u.over.clientHeight - tip.offsetHeight + 30), 0) + "px";
  };
  function label(u, text, x, y, align) {
    const c = u.ctx, d = devicePixelRatio || 1;
    c.save(); c.font = 12 * d + "px system-ui, sans-serif"; c.textAlign = align || "left"; c.textBaseline = "top";
    const w = c.measureText(text).width, left = align === "right" ? x - w : align === "center" ? x - w / 2 : x;
    c.fillStyle = variable("--panel"); c.globalAlpha = .82; c.fillRect(left - 4 * d, y - 2 * d, w + 8 * d, 17 * d);
    c.globalAlpha = 1; c.fillStyle = variable("--ink"); c.fillText(text, x, y); c.restore();
  }
  function rule(u, x0, y0, x1, y1, style, dash) {
    const c = u.ctx, d = devicePixelRatio || 1;
    c.save(); c.beginPath(); c.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height); c.clip();
    c.beginPath(); c.strokeStyle = style; c.lineWidth = 1.5 * d; c.setLineDash(dash.map((n) => n * d)); c.moveTo(x0, y0); c.lineTo(x1, y1); c.stroke(); c.restore();
  }
  function horizontal(u, value, text) {
    const y = u.valToPos(value, "y", true);
    if (y < u.bbox.top) return;
    rule(u, u.bbox.left, y, u.bbox.left + u.bbox.width, y, variable("--bad"), [7, 4]);
    label(u, text, u.bbox.left + u.bbox.width - 8 * (devicePixelRatio || 1), y + 4 * (devicePixelRatio || 1), "right");
  }
  function chart(host, make) {
    const tip = el("div", { class: "tip" });
    let plot = null;
    const draw = () => {
      const zoom = plot && plot.zoomed ? [plot.scales.x.min, plot.scales.x.max] : null;
      if (plot) plot.destroy();
      const { options, values, fill } = make();
      const axis = { stroke: variable("--soft"), grid: { stroke: variable("--line"), width: 1 }, ticks: { stroke: variable("--line"), width: 1 }, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", labelSize: 20 };
      options.axes = [{ ...axis, ...options.axes[0] }, { ...axis, ...options.axes[1], size: 76, incrs: binary, values: (u, v) => v.map(bytes) }];
      options.hooks = { ...options.hooks, setCursor: [(u) => hovered(u, tip, fill)], setScale: [(u, key) => {
        const x = u.data[0]; if (key === "x") u.zoomed = u.scales.x.min > x[0] || u.scales.x.max < x[x.length - 1]; }] };
      plot = new uPlot({ width: Math.max(host.clientWidth, 300), height: 360, legend: { show: false }, cursor: { drag: { x: true, y: false }, points: { show: false } }, ...options }, values, host);
      host.append(tip);
      if (zoom) plot.setScale("x", { min: zoom[0], max: zoom[1] });
    };
    redraws.push(draw); draw();
    let width = host.clientWidth;
    new ResizeObserver(() => { if (Math.abs(host.clientWidth - width) > 2) { width = host.clientWidth; plot.setSize({ width, height: 360 }); } }).observe(host);
    return draw;
  }
  const reach = (most, line) => (u, low, high) => [0, Math.max(most, line && line <= most * 1.35 ? line : 0) * 1.08 || 1];

  function memoryChart(info) {
    const curves = info.curves, hidden = new Set();
    let stacked = 0;
    const xs = [...new Set(curves.flatMap((c) => c.x))].sort((a, b) => a - b);
    const where = curves.map((c) => { let i = -1; return xs.map((x) => { while (i + 1 < c.x.length && c.x[i + 1] <= x) i++; return i; }); });
    const at = (c, k, i) => { const j = where[k][i]; return j < 0 ? 0 : c[j]; };
    const totals = curves.map((c, k) => { const sum = c.x.map((_, j) => Object.values(c.bytes).reduce((a, row) => a + row[j], 0)); return xs.map((_, i) => at(sum, k, i)); });
    const host = el("div", { class: "chart", role: "img", "aria-label": "live bytes over the run, stacked by category" });
    const chips = el("div", { class: "chips" });
    const switches = el("span", {});
    const names = data.categories.map((c) => c.name).filter((n) => curves.some((c) => c.bytes[n]));
    const section = el("section", {}, el("div", { class: "tools" }, el("h2", {}, curves.length > 1 ? "Live bytes, measured and projected" : "Live bytes, " + curves[0].kind), switches),
      host, chips, el("p", { class: "soft" }, "Drag to zoom, double click to see all. ", curves.length > 1 ? "The dashed line is the total of the run that is not drawn by category. " : "", curves.map((c) => c.shown < c.events ? `${c.shown} of ${c.events} ${c.kind} events are drawn: every peak, and all around the highest. ` : "").join("")));
    page.append(section);
    const draw = chart(host, () => {
      const c = curves[stacked], values = [xs], series = [{}], bands = [];
      const shown = names.filter((n) => c.bytes[n] && !hidden.has(n));
      let below = xs.map(() => 0);
      shown.forEach((n, k) => {
        below = below.map((v, i) => v + at(c.bytes[n], stacked, i));
        values.push(below);
        series.push({ label: n, stroke: colour(n), width: 1, fill: k ? undefined : colour(n), paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } });
        if (k) bands.push({ series: [k + 1, k], fill: colour(n) });
      });
      const other = curves.length > 1 ? 1 - stacked : -1;
      if (other >= 0 && !hidden.size) {
        values.push(totals[other]);
        series.push({ label: curves[other].kind, stroke: variable("--mark"), width: 1.6, dash: [6, 4], paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } });
      }
      const most = Math.max(1, ...values.slice(1).map((v) => v.reduce((a, b) => Math.max(a, b), 0)));
      const fill = (i) => {
        const j = where[stacked][i], parts = [];
        if (j >= 0) {
          const [op, module, line, step, phase] = c.places[c.at[j]];
          parts.push(el("b", {}, op || phase), el("div", { class: "soft" }, [phase + (step >= 0 ? ", step " + step : ""), c.milliseconds && seconds(c.milliseconds[j] / 1e3)].filter(Boolean).join(" · ")));
          if (module) parts.push(el("div", {}, module));
          if (line) parts.push(el("div", { class: "soft" }, line));
        }
        const rows = shown.slice().reverse().map((n) => [n, at(c.bytes[n], stacked, i)]).filter((r) => r[1]);
        parts.push(el("table", {}, el("tr", {}, el("td", {}, el("b", {}, c.kind)), el("td", { class: "number" }, el("b", {}, bytes(totals[stacked][i])))),
          rows.map(([n, v]) => { const s = el("i", { class: "swatch", style: { background: colour(n) } }); return el("tr", {}, el("td", {}, s, " " + data.words[n]), el("td", { class: "number" }, bytes(v))); }),
          other >= 0 ? el("tr", {}, el("td", {}, "┅ " + curves[other].kind), el("td", { class: "number" }, bytes(totals[other][i]))) : null));
        return parts;
      };
      const hooks = {
        drawAxes: [(u) => { info.phases.forEach(([step, phase, start, stop], k) => {
          if (k % 2) return;
          const a = u.valToPos(start, "x", true), b = u.valToPos(stop, "x", true), l = u.bbox.left, r = l + u.bbox.width;
          if (b < l || a > r) return;
          u.ctx.save(); u.ctx.fillStyle = variable("--shade"); u.ctx.fillRect(Math.max(a, l), u.bbox.top, Math.min(b, r) - Math.max(a, l), u.bbox.height); u.ctx.restore(); }); }],
        draw: [(u) => {
          const d = devicePixelRatio || 1;
          info.phases.forEach(([step, phase, start, stop]) => {
            const l = Math.max(u.valToPos(start, "x", true), u.bbox.left), r = Math.min(u.valToPos(stop, "x", true), u.bbox.left + u.bbox.width);
            if (r - l > (phase.length * 7 + 14) * d) label(u, phase, (l + r) / 2, u.bbox.top + 3 * d, "center"); });
          const peak = curves[stacked].peak_x;
          if (peak !== null && !hidden.size) {
            const x = u.valToPos(peak, "x", true), l = u.bbox.left, r = l + u.bbox.width;
            if (x >= l && x <= r) { rule(u, x, u.bbox.top, x, u.bbox.top + u.bbox.height, variable("--mark"), [2, 3]);
              const right = x > (l + r) / 2; label(u, "peak " + bytes(curves[stacked].peak), x + (right ? -9 : 9) * d, u.bbox.top + 24 * d, right ? "right" : "left"); } }
          if (info.capacity) horizontal(u, info.capacity, "capacity " + bytes(info.capacity));
        }],
      };
      return { values, fill, options: { scales: { x: { time: false }, y: { range: reach(most, info.capacity) } }, series, bands, hooks, axes: [{ label: "allocation events, in time order", space: 90 }, {}] } };
    });
    names.forEach((n) => {
      const chip = el("button", { type: "button", "aria-pressed": "true", title: "show or hide", onclick: () => {
        if (hidden.delete(n)) chip.setAttribute("aria-pressed", "true"); else { hidden.add(n); chip.setAttribute("aria-pressed", "false"); }
        draw(); } }, swatch(n), data.words[n]);
      chips.append(chip);
    });
    if (curves.length > 1) {
      switches.append(el("span", { class: "soft" }, "by category:"));
      const buttons = curves.map((c, k) => el("button", { type: "button", "aria-pressed": String(k === 0), onclick: () => { stacked = k; buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(i === k))); draw(); } }, c.kind));
      switches.append(...buttons);
    }
  }

  function fitChart(f) {
    const sides = [["baseline", f.baseline.line], ["fitted", f.fitted.line]].filter(([, line]) => line.x.length);
    if (!sides.length) return;
    const xs = [...new Set(sides.flatMap(([, line]) => line.x))].sort((a, b) => a - b);
    const rows = sides.map(([, line]) => { let i = -1; return xs.map((x) => { while (i + 1 < line.x.length && line.x[i + 1] <= x) i++; return i < 0 ? null : line.bytes[i]; }); });
    const host = el("div", { class: "chart", role: "img", "aria-label": "live bytes of the baseline and of the fitted step" });
    const tone = (name) => name === "fitted" ? (dark() ? "#93c56f" : "#4f8a2f") : (dark() ? "#e5806a" : "#c9573c");
    const key = el("span", {});
    page.append(el("section", {}, el("div", { class: "tools" }, el("h2", {}, "Live bytes, baseline against fitted"), key), host, el("p", { class: "soft" }, "Drag to zoom, double click to see all.")));
    chart(host, () => {
      key.replaceChildren(...sides.map(([name]) => el("span", {}, el("i", { class: "swatch", style: { background: tone(name) } }), name)));
      const most = Math.max(1, ...rows.map((r) => r.reduce((a, b) => Math.max(a, b || 0), 0)));
      return {
        values: [xs, ...rows],
        fill: (i) => [el("b", {}, Math.round(xs[i] * 1000) / 10 + " % of the step"), el("table", {}, sides.map(([name], k) => el("tr", {}, el("td", {}, name), el("td", { class: "number" }, bytes(rows[k][i])))))],
        options: {
          scales: { x: { time: false }, y: { range: reach(most, f.budget) } },
          series: [{}, ...sides.map(([name]) => ({ label: name, stroke: tone(name), fill: tone(name) + "30", width: 1.6, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } }))],
          axes: [{ label: "share of the step", values: (u, v) => v.map((x) => Math.round(x * 1000) / 10 + " %") }, {}],
          hooks: { draw: [(u) => horizontal(u, f.budget, "budget " + bytes(f.budget))] },
        },
      };
    });
  }

  // ---- tables ----
  function table(columns, rows, sortBy, kind) {
    const body = el("tbody", {});
    let key = sortBy, down = true;
    const heads = columns.map((c) => {
      const head = el("th", { class: (c.number ? "number " : "") + (sortBy ? "sorts" : ""), scope: "col" }, c.title);
      if (sortBy) {
        head.tabIndex = 0;
        const act = () => { down = key === c.key ? !down : !!c.number; key = c.key; fill(current); };
        head.addEventListener("click", act);
        head.addEventListener("keydown", (e) => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); act(); } });
      }
      return head;
    });
    let current = rows;
    function fill(list) {
      current = list;
      const sorted = key ? list.slice().sort((a, b) => (a[key] < b[key] ? -1 : a[key] > b[key] ? 1 : 0) * (down ? -1 : 1)) : list;
      columns.forEach((c, i) => { if (sortBy) { if (c.key === key) heads[i].setAttribute("aria-sort", down ? "descending" : "ascending"); else heads[i].removeAttribute("aria-sort"); } });
      body.replaceChildren(...sorted.map((r) => el("tr", {}, columns.map((c) => el("td", { class: (c.number ? "number " : "") + (c.class || "") }, c.show ? c.show(r) : String(r[c.key] ?? ""))))));
    }
    fill(rows);
    return { node: el("table", { class: kind || "" }, el("thead", {}, el("tr", {}, heads)), body), fill };
  }
  const difference = (r) => {
    if (r.projected === null || r.measured === null || r.projected === undefined || r.measured === undefined) return "–";
    const d = r.projected - r.measured;
    const share = r.measured ? Math.abs(100 * d / r.measured) : null;
    return d === 0 ? "exact" : (d > 0 ? "+" : "") + bytes(d) + (share === null ? "" : share < 0.005 ? " (0 %)" : ` (${d > 0 ? "+" : "−"}${share.toFixed(2)} %)`);
  };

  if (data.fit) {
    fitChart(data.fit);
    const f = data.fit, most = Math.max(1, ...f.levers.map((l) => l.saved));
    const list = el("section", {}, el("h2", {}, "Levers: what each saves and costs"));
    if (f.levers.length) list.append(el("div", { class: "wide" }, table([
      { title: "lever", key: "name", class: "nowrap", show: (l) => l.name.replaceAll("_", " ") },
      { title: "saved at the peak", key: "saved", number: true, show: (l) => [el("i", { class: "meter", style: { width: Math.max(120 * l.saved / most, 1) + "px" } }), bytes(l.saved)] },
      { title: "cost per step", key: "cost_seconds", number: true, show: (l) => Math.abs(l.cost_seconds) < 5e-7 ? "none" : seconds(l.cost_seconds) },
      { title: "results", key: "class", class: "nowrap" }, { title: "what it does here", key: "detail", class: "name" }], f.levers, "saved").node));
    else list.append(el("div", { class: "soft" }, "No lever was needed: the step keeps the budget as it is."));
    page.append(list);
    const sides = table([{ title: "", key: "name" }, { title: "baseline", key: "a", number: true }, { title: "fitted", key: "b", number: true }], [
      { name: "projected peak", a: bytes(f.baseline.projected_peak), b: bytes(f.fitted.projected_peak) },
      { name: "measured peak", a: bytes(f.baseline.measured_peak), b: bytes(f.fitted.measured_peak) },
      { name: "step time", a: seconds(f.baseline.step_seconds), b: seconds(f.fitted.step_seconds) },
      { name: "budget", a: "", b: bytes(f.budget) }, { name: "no plan goes below", a: "", b: f.lower_bound ? bytes(f.lower_bound) : "–" },
      { name: "smallest feasible budget", a: "", b: f.smallest_feasible ? bytes(f.smallest_feasible) : "–" }, { name: "planning", a: "", b: seconds(f.plan_seconds) }], undefined, "narrow");
    page.append(el("section", {}, el("h2", {}, "Baseline against fitted"), el("div", { class: "wide" }, sides.node)));
    page.append(el("section", {}, el("h2", {}, f.verified.length ? "Verified by running both" : "Not verified"), f.verified.length
      ? el("ul", { class: "checks" }, f.verified.map((v) => el("li", {}, el("b", { class: v.mark === "NO" ? "bad" : "good" }, v.mark === "yes" ? "✓" : v.mark === "NO" ? "✗" : "·"), v.text)))
      : el("div", { class: "soft" }, "Nothing was run; all figures are projected.")));
    if (f.use.length) page.append(el("section", {}, el("h2", {}, "Use it"), el("pre", {}, ["import memfit", ...f.use].join("\n"))));
  }
  if (data.chart) memoryChart(data.chart);
  else if (data.categories) page.append(el("section", {}, el("h2", {}, "Live bytes"), el("div", { class: "soft" }, "No events were recorded, so there is no chart.")));
  if (data.categories) {
    const total = data.categories.reduce((a, c) => a + c.bytes, 0), there = data.categories.filter((c) => c.bytes);
    const bar = el("div", { class: "bar" }, there.map((c) => { const part = el("i", { title: c.word + " " + bytes(c.bytes), style: { width: 100 * c.bytes / total + "%" } }); const paint = () => { part.style.background = colour(c.name); }; redraws.push(paint); paint(); return part; }));
    page.append(el("section", {}, el("h2", {}, "At the peak, by category" + (data.fit ? " (before the fit)" : "")), total
      ? [bar, el("div", { class: "wide" }, table([{ title: "category", key: "word", show: (c) => [swatch(c.name), " " + c.word] }, { title: "bytes", key: "bytes", number: true, show: (c) => bytes(c.bytes) }, { title: "share", key: "bytes", number: true, show: (c) => (100 * c.bytes / total).toFixed(1) + " %" }], there, undefined, "narrow").node)]
      : el("div", { class: "soft" }, "No tensor was alive.")));
    const found = el("input", { type: "search", placeholder: "filter by name, line, type", "aria-label": "filter the tensors" });
    const list = table([
      { title: "bytes", key: "bytes", number: true, show: (t) => bytes(t.bytes) }, { title: "kind", key: "word", class: "nowrap", show: (t) => [swatch(t.category), " " + t.word] },
      { title: "shape", key: "shape", class: "nowrap" }, { title: "tensor or module", key: "name", class: "name" }, { title: "made by", key: "op", class: "nowrap" }, { title: "line", key: "line", class: "name soft" }], data.alive, "bytes");
    found.addEventListener("input", () => { const want = found.value.toLowerCase(); list.fill(data.alive.filter((t) => [t.name, t.line, t.shape, t.word, t.op].join(" ").toLowerCase().includes(want))); });
    page.append(el("section", {}, el("div", { class: "tools" }, el("h2", {}, "Tensors alive at the peak" + (data.alive.length ? `, the ${data.alive.length} largest` : "")), data.alive.length ? found : null),
      data.alive.length ? el("div", { class: "scroll" }, list.node) : el("div", { class: "soft" }, "None is known.")));
  }
  if (data.compare) {
    const d = data.compare.divergence;
    page.append(el("section", {}, el("h2", {}, "Projected against measured"), el("div", { class: "wide" }, table([{ title: "", key: "name" }, { title: "projected", key: "projected", number: true, show: (r) => bytes(r.projected) }, { title: "measured", key: "measured", number: true, show: (r) => bytes(r.measured) }, { title: "difference", key: "d", number: true, show: difference }], data.compare.rows, undefined, "narrow").node),
      el("p", { class: "soft path" }, d ? "First divergence: " + [d.op, d.module, d.line].filter(Boolean).join(", ") + `: ${bytes(d.projected)} projected, ${bytes(d.measured)} measured.` : "No op diverges.")));
  }
  if (data.facts && data.facts.length) page.append(el("section", {}, el("h2", {}, "How the figures hang together"), el("div", { class: "wide" }, table([{ title: "", key: "name" }, { title: "bytes", key: "bytes", number: true, show: (r) => el("span", { class: r.bad ? "bad" : "" }, bytes(r.bytes)) }], data.facts, undefined, "narrow").node)));
  if (data.notes && data.notes.length) page.append(el("section", {}, el("h2", {}, "Notes"), el("ul", {}, data.notes.map((n) => el("li", {}, n)))));
  page.append(el("footer", {}, "Written by memfit. Sizes are binary: 1 KiB = 1024 B. Projected figures were computed, measured ones were observed in a run."));
})();
