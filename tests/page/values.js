// Runs before the page's own scripts: notes, by performance.now(), when each value was last seen as a value, and when the
// last result came. `shows` is [name, whether it shows a value now], `why` the reasons that must stand instead.
(() => {
  const Real = window.WebSocket;
  window.WebSocket = class extends Real {
    constructor(...given) {
      super(...given);
      this.addEventListener("message", ({ data }) => {
        if (typeof data === "string" && JSON.parse(data).type === "result") window.lastResult = performance.now();
      });
    }
  };
  const $ = (selector) => document.querySelector(selector);
  const said = (selector) => { const n = $(selector); return n && n.checkVisibility() ? n.textContent.trim() : ""; };
  const digits = (selector) => /[0-9]/.test(said(selector));
  const small = new OffscreenCanvas(16, 16).getContext("2d", { willReadFrequently: true });
  const inked = () => {
    if (!$("#face").width) return false;
    small.clearRect(0, 0, 16, 16);
    small.drawImage($("#face"), 0, 0, 16, 16);
    return small.getImageData(0, 0, 16, 16).data.some((v) => v > 0);
  };
  const letters = () => ($("#pain-chart canvas")?.written ?? []).filter(({ words }) => /^[FVE]$/.test(words)).length > 0;
  window.shows = () => ({
    "pain": digits("#pain"), "valence": digits("#valence"), "arousal": digits("#arousal"), "EDA": digits("#eda"),
    "highest in 5 min": digits("#pain-high"), "mean of 5 min": digits("#pain-mean"), "SCRs": digits("#eda-scrs"),
    "picture": inked(), "box": $("#face").dataset.box === "true", "live": said("#link") === "live" || document.body.dataset.trust === "live",
    "what-if ticks": letters(), "from what": Boolean(said("#pain-from") || said("#affect-from")),
    "latency": digits("#p50") || digits("#p95"), "dropped": digits("#dropped"), "clock": digits("#clock"), "REC": Boolean(said("#rec")),
    ...Object.fromEntries([...document.querySelectorAll(".modality .meter-cell")].map((n) => [
      `${n.dataset.kind} of ${n.closest(".modality").id}`, n.checkVisibility() && /[0-9]/.test(n.querySelector("b").textContent),
    ])),
  });
  window.why = () => ["#pain-reason", "#affect-reason", "#eda-reason", "#face-off", "#modality-face .verdict", "#modality-voice .verdict", "#modality-eda .verdict"].map(said);
  window.lastShown = {};
  window.watch = () => setInterval(() => {
    for (const [name, there] of Object.entries(window.shows())) if (there) window.lastShown[name] = performance.now();
  }, 20);
})();
