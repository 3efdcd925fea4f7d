/* Shows what was measured of the chosen run, strategy, state and number of layers. The choice stands
   in the address behind #, so that it can be shared. */
(() => {
  const root = [...document.querySelectorAll(".explorer[hidden]")].pop();
  const data = [...document.querySelectorAll(".explorer-data")].pop();
  if (!root || !data) return;
  const runs = JSON.parse(data.textContent);
  const find = (name) => root.querySelector(`[name=${name}]`);
  const [runBox, strategyBox, healedBox, slider, promptBox] =
    ["run", "strategy", "healed", "n", "prompt"].map(find);
  const percent = (share) => `${(100 * share).toFixed(0)}%`;

  const make = (kind, className, text) => {
    const element = document.createElement(kind);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const offer = (box, values, words = (value) => value) => {
    const before = box.value;
    box.replaceChildren(...values.map((value) => new Option(words(value), value)));
    if (values.includes(before)) box.value = before;
  };
  const run = () => runs.find((one) => one.name === runBox.value) || runs[0];
  const state = () => (healedBox.checked ? "healed" : "unhealed");
  const points = () => run().measured[strategyBox.value]?.[state()] || {};
  const sizes = () => Object.keys(points()).map(Number).sort((a, b) => a - b);
  const chosen = () => sizes()[slider.value] ?? 0;

  let wanted = 0; // this number stays asked for while models are compared that lack it
  /* What can be chosen follows from what was chosen before it. */
  const settle = () => {
    offer(strategyBox, Object.keys(run().measured));
    const states = run().measured[strategyBox.value] || {};
    healedBox.disabled = !(states.healed && states.unhealed);
    if (!states[state()]) healedBox.checked = Boolean(states.healed);
    const all = sizes();
    slider.max = Math.max(0, all.length - 1);
    const nearest = [...all].sort((a, b) => Math.abs(a - wanted) - Math.abs(b - wanted))[0];
    slider.value = all.indexOf(nearest);
    offer(promptBox, Object.keys(run().texts));
  };

  /* A bar from 0 to `value` of `full`, with one standard error and marks for chance and unpruned. */
  const bar = (className, value, error, full, marks) => {
    const box = make("span", `bar ${className}`);
    box.setAttribute("aria-hidden", "true");
    const place = (kind, from, to) => {
      const part = make("i", kind);
      const left = Math.max(0, Math.min(1, from / full));
      part.style.left = `${100 * left}%`;
      if (to !== undefined)
        part.style.width = `${100 * (Math.max(0, Math.min(1, to / full)) - left)}%`;
      box.append(part);
    };
    place("value", 0, value);
    if (error !== null) place("error", value - error, value + error);
    for (const [kind, at] of marks) if (at !== null && at !== undefined) place(kind, at);
    return box;
  };
  const row = (label, shown, figure) => {
    const line = make("p", "row");
    line.append(make("span", "label", label), shown, make("span", "figure", figure));
    return line;
  };

  const draw = () => {
    const one = run(), n = chosen(), point = points()[n], whole = points()[0];
    const share = `${n} of ${one.layers} layers cut (${percent(n / one.layers)})`;
    root.querySelector("output").textContent = share;
    slider.setAttribute("aria-valuetext", share);
    slider.setAttribute("aria-label", "Number of layers cut");
    const stack = root.querySelector(".stack");
    const cut = new Set(point.dropped);
    stack.replaceChildren(...Array.from({ length: one.layers }, (_, layer) =>
      make("span", cut.has(layer) ? "cut" : "", String(layer))));
    stack.classList.toggle("tall", one.layers > 20);
    stack.setAttribute("aria-label", cut.size
      ? `Layers cut, counted from 0: ${point.dropped.join(", ")}` : "No layer is cut");
    const rows = one.tasks.map((task, index) => {
      const answer = point.accuracy[index];
      if (!answer || answer[0] === null) return row(task.label, make("span"), "not asked");
      const [value, error] = answer;
      const errors = error === null ? "" : ` ± ${(100 * error).toFixed(1)}`;
      const of = task.questions === null ? "" : ` of ${task.questions}`;
      const marks = [["chance", task.chance], ["unpruned", whole?.accuracy[index]?.[0]]];
      return row(task.label, bar("", value, error, 1, marks),
        `${(100 * value).toFixed(1)}${errors}%${of}`);
    });
    const [loss, error] = point.loss;
    rows.push(row(`Loss on ${one.corpus}`,
      bar("loss", loss, error, one.nothing, [["unpruned", whole?.loss[0]]]),
      `${loss.toFixed(2)} ± ${(error ?? 0).toFixed(2)} nats per token`));
    root.querySelector(".rows").replaceChildren(...rows);
    root.querySelector(".explorer-notes").textContent =
      `${one.sign}. Share of questions answered rightly, ± one standard error. Dotted line: chance; ` +
      "solid line: no layer cut. The bar of the loss ends at ln V, where a model knows nothing.";
    const text = one.texts[promptBox.value]?.[state()]?.[n];
    const main = strategyBox.value === Object.keys(one.measured)[0];
    root.querySelector(".writes").hidden = !promptBox.options.length;
    const shown = root.querySelector(".text");
    const known = main && text !== undefined;
    shown.textContent = !known ? "Not measured for this choice." : text.trim() || "It stops at once.";
    shown.classList.toggle("none", !known || !text.trim());
  };

  const remember = () => {
    const choice = new URLSearchParams({
      run: run().name, strategy: strategyBox.value, layers: chosen(), state: state(),
    });
    history.replaceState(null, "", `#${choice}`);
  };
  const recall = () => {
    const choice = new URLSearchParams(location.hash.slice(1));
    if (choice.has("run")) runBox.value = choice.get("run");
    if (!runBox.value) runBox.value = runs[0].name;
    settle();
    if (choice.has("strategy")) strategyBox.value = choice.get("strategy");
    if (!strategyBox.value) strategyBox.selectedIndex = 0;
    healedBox.checked = choice.get("state") !== "unhealed";
    if (!points()[0]) healedBox.checked = false; // this strategy's models are not healed
    wanted = Number(choice.get("layers") ?? Math.round(run().layers / 4));
    settle();
    draw();
  };

  const groups = new Map();
  for (const one of runs) {
    if (!groups.has(one.sign))
      groups.set(one.sign, Object.assign(document.createElement("optgroup"), { label: one.sign }));
    groups.get(one.sign).append(new Option(one.title, one.name));
  }
  runBox.append(...groups.values());
  root.addEventListener("input", (event) => {
    if (event.target === slider) wanted = chosen();
    else if (event.target !== promptBox) settle();
    draw();
    remember();
  });
  window.addEventListener("hashchange", recall);
  root.hidden = false;
  recall();
})();
