"use strict";
// Draws the figures: their data stand in the page, the library is packed (gzip, base64) in it. Nothing is fetched.
(async () => {
  const root = document.documentElement;
  const toggle = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const paper = matchMedia("print");
  const printed = { width: 310, height: 235 };
  const charts = [...document.querySelectorAll("script.chart")].map((script) => ({
    plot: document.getElementById(script.dataset.for),
    spec: JSON.parse(script.textContent),
    at: null,
    turned: false,
  }));
  let chosen = "";
  let printing = false;

  const dark = () => !printing && (chosen || (system.matches ? "dark" : "light")) === "dark";

  function paint() {
    if (printing || chosen) root.dataset.theme = dark() ? "dark" : "light";
    else delete root.dataset.theme;
    toggle.textContent = dark() ? "Light" : "Dark";
    toggle.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`);
    if (window.Plotly) charts.forEach(draw);
  }

  // "@c1" and "@c1/0.2" in a figure are colours of the page's style sheet.
  function coloured(value, style) {
    if (Array.isArray(value)) return value.map((one) => coloured(one, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, coloured(one, style)]));
    }
    const found = typeof value === "string" && /^@(\w+)(?:\/([\d.]+))?$/.exec(value);
    if (!found) return value;
    const colour = style.getPropertyValue(`--${found[1]}`).trim();
    if (!found[2]) return colour;
    const full = colour.length === 4 ? colour.replace(/[^#]/g, "$&$&") : colour;
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(full.slice(i, i + 2), 16));
    return `rgba(${r},${g},${b},${found[2]})`;
  }

  const spec = (chart) => (chart.turned && !printing ? chart.spec.turned : chart.spec);

  function layout(chart, style) {
    const get = (name) => style.getPropertyValue(`--${name}`).trim();
    const axis = {
      gridcolor: get("line"), zerolinecolor: get("line"), linecolor: get("line"), automargin: true, fixedrange: true,
      ticks: "", title: { standoff: 8 },
    };
    const merged = (own) => ({ ...axis, ...own, title: { ...axis.title, ...(own || {}).title } });
    return {
      ...spec(chart).layout,
      ...(spec(chart) === chart.spec ? { xaxis: merged(chart.spec.layout.xaxis), yaxis: merged(chart.spec.layout.yaxis) } : {}),
      font: { family: getComputedStyle(document.body).fontFamily, size: printing ? 9 : 12, color: get("muted") },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 8, r: 8, t: 8, b: 8 },
      showlegend: false, hovermode: "closest", hoverdistance: 40, dragmode: false, uirevision: 1,
      hoverlabel: { bgcolor: get("raised"), bordercolor: get("line"), font: { color: get("ink"), size: 12 }, align: "left" },
      ...(printing ? printed : { autosize: true, width: undefined, height: undefined }),
    };
  }

  function draw(chart) {
    const style = getComputedStyle(root);
    const data = coloured(spec(chart).data, style);
    const scale = { tickfont: { color: style.getPropertyValue("--muted").trim() } };
    data.forEach((trace) => { if (trace.colorbar) trace.colorbar = { ...scale, ...trace.colorbar }; });
    Plotly.react(chart.plot, data, coloured(layout(chart, style), style), { displayModeBar: false, responsive: true });
  }

  // Contours become a surface, and back; the arrow keys turn it as the pointer does.
  function turn(button) {
    const chart = charts.find((one) => one.plot.id === button.dataset.figure);
    chart.turned = !chart.turned;
    button.setAttribute("aria-pressed", String(chart.turned));
    chart.plot.classList.toggle("turned", chart.turned);
    Plotly.purge(chart.plot);
    draw(chart);
  }

  function rotate(chart, key) {
    const { eye } = chart.plot.layout.scene.camera;
    const by = { ArrowLeft: -0.15, ArrowRight: 0.15 }[key] || 0;
    const up = { ArrowUp: 0.15, ArrowDown: -0.15 }[key] || 0;
    const [x, y] = [eye.x * Math.cos(by) - eye.y * Math.sin(by), eye.x * Math.sin(by) + eye.y * Math.cos(by)];
    Plotly.relayout(chart.plot, { "scene.camera.eye": { x, y, z: Math.min(Math.max(eye.z + up, 0.05), 3) } });
    return true;
  }

  function save(text, type, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // As on paper: light, with its title and its legend.
  async function saveFigure(button) {
    const chart = charts.find((one) => one.plot.id === button.dataset.figure);
    if (button.dataset.save === "csv") {
      save(chart.spec.csv, "text/csv", `${chart.spec.file}.csv`);
      return;
    }
    const before = root.dataset.theme;
    root.dataset.theme = "light";
    const style = getComputedStyle(root);
    const named = (trace) => Boolean(trace.name) && trace.type === "scatter" && trace.line && trace.line.width > 1;
    const data = coloured(spec(chart).data, style).map((trace) => ({ ...trace, name: trace.name || "", showlegend: named(trace) }));
    const framed = {
      ...coloured(layout(chart, style), style), title: { text: chart.spec.title.replace(/&/g, "&amp;").replace(/</g, "&lt;"), font: { size: 14 } },
      paper_bgcolor: "#fff", plot_bgcolor: "#fff", margin: { l: 60, r: 20, t: 50, b: 50 },
      showlegend: data.filter((trace) => trace.showlegend).length > 1, autosize: false,
      ...(chart.turned ? { scene: { ...coloured(spec(chart).layout.scene, style), camera: chart.plot.layout.scene.camera } } : {}),
    };
    if (before) root.dataset.theme = before; else delete root.dataset.theme;
    const text = await Plotly.toImage({ data, layout: framed }, { format: "svg", width: 720, height: 480, imageDataOnly: true });
    save(text, "image/svg+xml", `${chart.spec.file}.svg`);
  }

  function unpacked() {
    const packed = document.getElementById("library");
    const bytes = Uint8Array.from(atob(packed.textContent.trim()), (c) => c.charCodeAt(0));
    packed.remove();
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  // Arrow keys: left and right along a line, up and down to another one; the value is shown and spoken.
  function step(chart, key) {
    if (chart.turned) return rotate(chart, key);
    const lines = chart.spec.data.map((trace, i) => i).filter((i) => {
      const trace = chart.spec.data[i];
      return trace.type === "scatter" && trace.hoverinfo !== "skip" && trace.visible !== "legendonly";
    });
    if (!lines.length) return false;
    const at = chart.at || { line: 0, point: -1 };
    if (key === "ArrowUp" || key === "ArrowDown") at.line = (at.line + (key === "ArrowUp" ? lines.length - 1 : 1)) % lines.length;
    const trace = chart.spec.data[lines[at.line % lines.length]];
    if (key === "ArrowRight") at.point += 1;
    if (key === "ArrowLeft") at.point -= 1;
    at.point = Math.min(Math.max(at.point, 0), trace.x.length - 1);
    chart.at = at;
    const name = new DOMParser().parseFromString(trace.name || "", "text/html").documentElement.textContent;
    const show = (value) => (typeof value === "number" ? Number(value.toPrecision(5)) : value);
    chart.plot.parentElement.querySelector(".spoken").textContent = `${name} ${show(trace.x[at.point])}: ${show(trace.y[at.point])}`;
    try {
      Plotly.Fx.hover(chart.plot, [{ curveNumber: lines[at.line % lines.length], pointNumber: at.point }]);
    } catch (error) { /* a point that is not drawn has nothing to show */ }
    return true;
  }

  function press(button) {
    const chart = charts.find((one) => one.plot.id === button.dataset.figure);
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    button.dataset.traces.split(" ").forEach((i) => { chart.spec.data[Number(i)].visible = shown ? true : "legendonly"; });
    chart.at = null;
    draw(chart);
  }

  toggle.hidden = false;
  toggle.addEventListener("click", () => { chosen = dark() ? "light" : "dark"; paint(); });
  system.addEventListener("change", paint);
  paint();
  if (!("DecompressionStream" in window)) {
    document.getElementById("unsupported").hidden = false;
    return;
  }
  const library = document.createElement("script");
  library.textContent = await unpacked();
  document.head.append(library);
  charts.forEach(draw);
  document.querySelectorAll(".legend button").forEach((button) => button.addEventListener("click", () => press(button)));
  document.querySelectorAll(".tools").forEach((tools) => { tools.hidden = false; });
  document.querySelectorAll("[data-save]").forEach((button) => button.addEventListener("click", () => saveFigure(button)));
  document.querySelectorAll("[data-turn]").forEach((button) => button.addEventListener("click", () => turn(button)));
  charts.forEach((chart) => chart.plot.addEventListener("keydown", (event) => {
    if (event.key.startsWith("Arrow") && step(chart, event.key)) event.preventDefault();
  }));
  const print = (on) => {
    if (printing === on) return;
    printing = on;
    if (window.Plotly) charts.filter((chart) => chart.turned).forEach((chart) => Plotly.purge(chart.plot));
    paint();
  };
  paper.addEventListener("change", () => print(paper.matches));
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  if (paper.matches) print(true);
  root.dataset.drawn = "yes";
})();
