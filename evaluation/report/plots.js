// Draws every figure that carries data-plot with Vega, beside its static plot, which stays for print.
// No text of the page becomes markup here: names stay in the document, tips are set as text.
(() => {
  "use strict";
  const ENDS = ["xlow", "xhigh", "ylow", "yhigh"];
  const root = document.documentElement;

  const coloured = (part) => {
    if (typeof part === "string") {
      return /^--[a-z0-9-]+$/.test(part) ? getComputedStyle(root).getPropertyValue(part).trim() || part : part;
    }
    if (Array.isArray(part)) return part.map(coloured);
    if (part && typeof part === "object") {
      return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, key === "values" ? value : coloured(value)]));
    }
    return part;
  };

  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("aria-hidden", "true");
  tip.hidden = true;
  document.body.append(tip);
  const showTip = (handler, event, item, value) => {
    tip.hidden = value === null || value === undefined || value === "";
    if (tip.hidden) return;
    tip.textContent = String(value);
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 12)}px`;
  };

  class Figure {
    constructor(figure) {
      this.spec = JSON.parse(figure.dataset.plot);
      this.start = Object.fromEntries(ENDS.map((name) => [name, this.spec.params.find((each) => each.name === name).value]));
      this.ends = { ...this.start };
      this.isLog = this.spec.layer[0].encoding.x.scale.type === "log";
      this.hidden = new Set();
      this.stage = document.createElement("div");
      this.stage.className = "live";
      this.stage.tabIndex = 0;
      this.stage.setAttribute("role", "group");
      this.stage.setAttribute("aria-label", `${figure.dataset.title}, interactive. Plus and minus zoom, arrow keys move, 0 resets. The values are in a table below.`);
      this.inner = document.createElement("div");
      this.inner.setAttribute("aria-hidden", "true");
      this.stage.append(this.inner);
      figure.querySelector("svg.drawn").after(this.stage);
      this.tools(figure);
      this.legend(figure);
      this.keys();
      this.drags();
    }

    async draw() {
      const options = { ast: true, actions: false, renderer: "svg", defaultStyle: false, tooltip: showTip, mode: "vega-lite" };
      const drawn = await window.privolveEmbed(this.inner, coloured(this.spec), options);
      if (this.drawn) this.drawn.finalize();
      this.drawn = drawn;
      await this.apply();
    }

    async apply() {
      if (!this.drawn) return;
      for (const name of ENDS) this.drawn.view.signal(name, this.ends[name]);
      this.drawn.view.signal("hidden", [...this.hidden]);
      await this.drawn.view.runAsync();
      const moved = ENDS.some((name) => this.ends[name] !== this.start[name]);
      this.stage.classList.toggle("zoomed", moved);
      this.reset.disabled = this.out.disabled = !moved;
    }

    // In the space of an axis: logarithms where it is logarithmic.
    through(axis, change) {
      const [low, high] = [`${axis}low`, `${axis}high`];
      const log = axis === "x" && this.isLog;
      const into = log ? Math.log : (value) => value;
      const back = log ? Math.exp : (value) => value;
      const [first, last] = [into(this.start[low]), into(this.start[high])];
      let [from, to] = change(into(this.ends[low]), into(this.ends[high]));
      if (from < first) [from, to] = [first, Math.min(last, to + first - from)];
      if (to > last) [from, to] = [Math.max(first, from - to + last), last];
      this.ends[low] = from === first ? this.start[low] : back(from);
      this.ends[high] = to === last ? this.start[high] : back(to);
    }

    zoom(factor) {
      for (const axis of ["x", "y"]) {
        this.through(axis, (low, high) => {
          const [middle, half] = [(low + high) / 2, ((high - low) / 2) * factor];
          return [middle - half, middle + half];
        });
      }
      return this.apply();
    }

    move(across, up) {
      this.through("x", (low, high) => [low + across * (high - low), high + across * (high - low)]);
      this.through("y", (low, high) => [low + up * (high - low), high + up * (high - low)]);
      return this.apply();
    }

    whole() {
      this.ends = { ...this.start };
      return this.apply();
    }

    tools(figure) {
      const bar = document.createElement("div");
      bar.className = "tools";
      bar.setAttribute("role", "group");
      bar.setAttribute("aria-label", `Zoom of ${figure.dataset.title}`);
      const button = (sign, words, act) => {
        const made = document.createElement("button");
        made.type = "button";
        made.textContent = sign;
        made.setAttribute("aria-label", words);
        made.title = words;
        made.addEventListener("click", act);
        bar.append(made);
        return made;
      };
      button("+", "Zoom in", () => this.zoom(0.6));
      this.out = button("−", "Zoom out", () => this.zoom(1 / 0.6));
      this.reset = button("Whole", "Show the whole plot", () => this.whole());
      this.stage.after(bar);
    }

    legend(figure) {
      const list = figure.querySelector(".legend");
      list.removeAttribute("aria-hidden");
      list.setAttribute("aria-label", "Series: choose which are shown");
      [...list.children].forEach((item, number) => {
        const button = document.createElement("button");
        button.type = "button";
        button.setAttribute("aria-pressed", "true");
        button.append(...item.childNodes);
        button.addEventListener("click", () => {
          if (!this.hidden.delete(number)) this.hidden.add(number);
          button.setAttribute("aria-pressed", String(!this.hidden.has(number)));
          this.apply();
        });
        item.append(button);
      });
    }

    keys() {
      const acts = {
        "+": () => this.zoom(0.6),
        "=": () => this.zoom(0.6),
        "-": () => this.zoom(1 / 0.6),
        0: () => this.whole(),
        ArrowLeft: () => this.move(-0.15, 0),
        ArrowRight: () => this.move(0.15, 0),
        ArrowUp: () => this.move(0, 0.15),
        ArrowDown: () => this.move(0, -0.15),
      };
      this.stage.addEventListener("keydown", (event) => {
        const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : acts[event.key];
        if (!act || (event.key.startsWith("Arrow") && !this.stage.classList.contains("zoomed"))) return;
        event.preventDefault();
        act();
      });
    }

    drags() {
      let last = null;
      this.stage.addEventListener("pointerdown", (event) => {
        if (event.pointerType === "mouse" && event.button === 0 && this.stage.classList.contains("zoomed")) {
          last = [event.clientX, event.clientY];
          this.stage.setPointerCapture(event.pointerId);
        }
      });
      this.stage.addEventListener("pointermove", (event) => {
        if (!last) return;
        const view = this.drawn.view;
        this.move((last[0] - event.clientX) / view.width(), (event.clientY - last[1]) / view.height());
        last = [event.clientX, event.clientY];
      });
      const stop = () => { last = null; };
      this.stage.addEventListener("pointerup", stop);
      this.stage.addEventListener("pointercancel", stop);
      this.stage.addEventListener("dblclick", () => this.whole());
    }
  }

  const figures = [...document.querySelectorAll("figure[data-plot]")].map((each) => new Figure(each));
  root.classList.add("alive");
  const all = () => Promise.all(figures.map((each) => each.draw()));
  all().then(() => { root.dataset.plots = "drawn"; });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
})();
