// Conveniences only; every page works without them. The reader's name is remembered on this device.
"use strict";
const reader = document.getElementById("reader");
if (reader) {
  reader.value = reader.value || localStorage.getItem("reader") || "";
  reader.form.addEventListener("submit", () => localStorage.setItem("reader", reader.value.trim()));
}
const heat = document.getElementById("heat");
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=checkbox]), textarea");
  if (heat && !typing && !event.ctrlKey && !event.metaKey && !event.altKey && event.key.toLowerCase() === "h") {
    heat.checked = !heat.checked;
  }
});
