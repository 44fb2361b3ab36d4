(function () {
  "use strict";
  var source = document.getElementById("explore-data");
  if (!source) { return; }
  var data = JSON.parse(source.textContent), box = document.getElementById("explorer");
  function bytes(text) {
    var raw = atob(text), out = new Uint8Array(raw.length);
    for (var k = 0; k < raw.length; k++) { out[k] = raw.charCodeAt(k); }
    return out;
  }
  var T = data.steps, count = data.index.length, population = data.population, answering = data.output;
  var layers = data.layers.map(function (layer) {
    var n = layer.shape.reduce(function (a, b) { return a * b; }, 1), bits = bytes(layer.bits);
    return { name: layer.name, shape: layer.shape, n: n,
      at: function (s, t, i) { var p = (s * T + t) * n + i; return (bits[p >> 3] >> (7 - (p & 7))) & 1; } };
  });
  var input = bytes(data.input.data), size = input.length / (count * data.input.frames);
  function get(id) { return document.getElementById(id); }
  var sample = get("x-sample"), layer = get("x-layer"), step = get("x-step"), map = get("x-map");
  data.index.forEach(function (index, k) {
    var label = data.labels ? data.labels[k] : null, mark = label === null ? "" : label === data.answers[k] ? " ✓" : " ✗";
    var text = "image " + index + (label === null ? "" : ", class " + label) + ", answer " + data.answers[k] + mark;
    sample.add(new Option(text, k));
  });
  layers.forEach(function (one, k) { layer.add(new Option(one.name + " (" + one.n.toLocaleString("en") + " neurons)", k)); });
  step.max = T; step.value = T;
  function colours() {
    var style = getComputedStyle(document.documentElement);
    function of(name) { return style.getPropertyValue(name).trim(); }
    return { ink: of("--ink"), soft: of("--soft"), line: of("--line"), accent: of("--accent"), core: of("--core"), good: of("--good") };
  }
  function prepare(canvas, width, height) {
    var ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
    canvas.style.aspectRatio = width + " / " + height;
    var c = canvas.getContext("2d");
    c.setTransform(ratio, 0, 0, ratio, 0, 0); c.clearRect(0, 0, width, height);
    return c;
  }
  function grid(shape, n) {
    if (shape.length === 3) { return { channels: shape[0], rows: shape[1], columns: shape[2] }; }
    var side = Math.ceil(Math.sqrt(n)), exact = Math.round(Math.sqrt(n));
    return exact * exact === n ? { channels: 1, rows: exact, columns: exact } : { channels: 1, rows: Math.ceil(n / side), columns: side };
  }
  function picture(s, t) {
    var g = grid(data.input.shape, size), c = prepare(get("x-input"), 200, 200 * g.rows / g.columns);
    var frame = data.input.frames > 1 ? Math.min(Math.max(t - 1, 0), data.input.frames - 1) : 0;
    var start = (s * data.input.frames + frame) * size, w = 200 / g.columns, colour = g.channels === 3;
    for (var r = 0; r < g.rows; r++) {
      for (var q = 0; q < g.columns; q++) {
        var p = r * g.columns + q;
        if (p >= size) { continue; }
        var part = function (ch) { return Math.round(255 * input[start + ch * g.rows * g.columns + p] / data.input.largest); };
        c.fillStyle = colour ? "rgb(" + part(0) + "," + part(1) + "," + part(2) + ")" : "rgb(" + part(0) + "," + part(0) + "," + part(0) + ")";
        c.fillRect(q * w, r * w, w + 0.5, w + 0.5);
      }
    }
  }
  function byClass(one) { return population > 1 && one === layers[answering]; }
  function scores(s) {
    var out = layers[answering], found = [];
    for (var i = 0; i < out.n; i += population) {
      var line = [0];
      for (var k = 0; k < T; k++) {
        var sum = line[k];
        for (var j = i; j < i + population; j++) { sum += out.at(s, k, j); }
        line.push(sum);
      }
      found.push(line);
    }
    return found;
  }
  function leader(totals, t) {
    var best = 0;
    totals.forEach(function (line, i) { if (line[t] > totals[best][t]) { best = i; } });
    return best;
  }
  function classes(c, s, t, width, height, ink) {
    var totals = scores(s), best = leader(totals, t), h = height / totals.length;
    c.font = Math.max(7, Math.min(12, h - 1)) + "px system-ui, sans-serif"; c.textBaseline = "middle";
    totals.forEach(function (line, i) {
      c.fillStyle = ink.line; if (i) { c.fillRect(0, i * h - 0.5, 640, 1); }
      c.fillStyle = i === best && line[t] ? ink.accent : ink.soft;
      if (h >= 7) { c.fillText("class " + i + ": " + line[t], width + 8, (i + 0.5) * h); }
    });
    c.textBaseline = "alphabetic";
  }
  function raster(s, t, one) {
    var ink = colours(), height = Math.max(90, Math.min(320, one.n * 4)), c = prepare(get("x-raster"), 640, height);
    var width = byClass(one) ? 550 : 640, w = width / T, h = height / one.n, spikes = 0;
    c.fillStyle = ink.core; c.fillRect((t - 1) * w, 0, w, height);
    for (var k = 0; k < T; k++) {
      for (var i = 0; i < one.n; i++) {
        if (!one.at(s, k, i)) { continue; }
        if (k < t) { spikes++; }
        c.fillStyle = k < t ? ink.accent : ink.line;
        c.fillRect(k * w + 1, i * h, Math.max(1, w - 2), Math.max(1, h - (h > 3 ? 1 : 0)));
      }
    }
    if (byClass(one)) { classes(c, s, t, width, height, ink); }
    get("x-count").textContent = spikes.toLocaleString("en") + " spikes of " + one.name + " up to step " + t;
  }
  function rates(s, t, one) {
    var ink = colours(), g = grid(one.shape, one.n), columns = byClass(one);
    if (columns) { g = { channels: 1, rows: population, columns: one.n / population }; }
    var across = Math.ceil(Math.sqrt(g.channels)), down = Math.ceil(g.channels / across);
    var cell = 320 / (across * (g.columns + 1)), height = Math.max(20, down * (g.rows + 1) * cell), c = prepare(map, 320, height);
    for (var i = 0; i < one.n; i++) {
      var total = 0;
      for (var k = 0; k < t; k++) { total += one.at(s, k, i); }
      var ch = Math.floor(i / (g.rows * g.columns)), p = i % (g.rows * g.columns);
      if (columns) { p = (i % population) * g.columns + Math.floor(i / population); }
      var x = ((ch % across) * (g.columns + 1) + p % g.columns) * cell, y = (Math.floor(ch / across) * (g.rows + 1) + Math.floor(p / g.columns)) * cell;
      c.globalAlpha = 1; c.fillStyle = ink.core; c.fillRect(x, y, cell * 0.94, cell * 0.94);
      c.globalAlpha = t ? total / t : 0; c.fillStyle = ink.accent; c.fillRect(x, y, cell * 0.94, cell * 0.94);
    }
    c.globalAlpha = 1;
    get("x-columns").textContent = columns ? ", a column a class" : "";
  }
  function answer(s, t) {
    var ink = colours(), c = prepare(get("x-answer"), 640, 190), totals = scores(s), best = leader(totals, t), top = 1;
    totals.forEach(function (line) { top = Math.max(top, line[T]); });
    var x = function (k) { return 34 + k / T * 570; }, y = function (v) { return 168 - v / top * 150; };
    c.font = "12px system-ui, sans-serif"; c.strokeStyle = ink.line; c.fillStyle = ink.soft;
    c.beginPath(); c.moveTo(34, 10); c.lineTo(34, 168); c.lineTo(604, 168); c.stroke();
    c.fillText(String(top), 8, 22); c.fillText("0", 18, 172); c.fillText("step " + T, 570, 186);
    totals.forEach(function (line, i) {
      var right = data.labels && data.labels[s] === i;
      c.strokeStyle = i === best ? ink.accent : right ? ink.good : ink.line; c.lineWidth = i === best || right ? 2.5 : 1.2;
      c.beginPath();
      for (var k = 0; k <= T; k++) { c[k ? "lineTo" : "moveTo"](x(k), y(line[k])); }
      c.stroke();
      if (i === best || right) { c.fillStyle = c.strokeStyle; c.fillText(String(i), 612, y(line[T]) + 4); }
    });
    c.strokeStyle = ink.soft; c.lineWidth = 1; c.setLineDash([3, 3]);
    c.beginPath(); c.moveTo(x(t), 10); c.lineTo(x(t), 168); c.stroke(); c.setLineDash([]);
    var spikes = totals[best][t], from = population > 1 ? " of its " + population + " neurons)" : ")";
    get("x-says").textContent = !data.spiking ? "The output does not spike; by its membranes after step " + T + " the answer is " + data.answers[s]
      : spikes ? "After step " + t + " the answer is " + best + " (" + spikes + (spikes === 1 ? " spike" : " spikes") + from : "No output spike up to step " + t;
  }
  function draw() {
    var s = Number(sample.value), t = Number(step.value), one = layers[Number(layer.value)];
    get("x-step-text").textContent = t + " of " + T;
    picture(s, t); raster(s, t, one); rates(s, t, one); answer(s, t);
  }
  function move(by) { sample.value = String((Number(sample.value) + by + count) % count); draw(); }
  var playing = null;
  function play() {
    if (playing) { clearInterval(playing); playing = null; get("x-play").textContent = "Play"; return; }
    step.value = 1; draw(); get("x-play").textContent = "Stop";
    playing = setInterval(function () {
      if (Number(step.value) >= T) { play(); return; }
      step.value = Number(step.value) + 1; draw();
    }, 250);
  }
  [sample, layer].forEach(function (one) { one.addEventListener("change", draw); });
  step.addEventListener("input", draw);
  get("x-next").addEventListener("click", function () { move(1); });
  get("x-back").addEventListener("click", function () { move(-1); });
  get("x-play").addEventListener("click", play);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  window.addEventListener("beforeprint", draw);
  box.hidden = false;
  draw();
  box.setAttribute("data-drawn", "yes");
})();
