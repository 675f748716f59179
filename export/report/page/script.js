"use strict";
const table = document.getElementById("site-table");
if (table) {
  const body = table.tBodies[0], rows = Array.from(body.rows);
  const text = document.getElementById("filter-text"), status = document.getElementById("filter-status");
  const count = document.getElementById("filter-count");
  const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));

  const filter = () => {
    const wanted = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const fits = (!status.value || row.dataset.status === status.value)
        && wanted.every((word) => words.get(row).includes(word));
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${rows.length} sites`;
  };
  text.addEventListener("input", filter);
  status.addEventListener("change", filter);
  text.form.addEventListener("submit", (event) => event.preventDefault());

  const value = (row, column, type) => {
    const cell = row.cells[column], said = cell.dataset.value ?? cell.textContent.trim();
    // A cell without a number comes last in ascending order.
    return type === "number" ? (said === "" ? Infinity : Number(said)) : said;
  };
  const names = new Intl.Collator("en", { numeric: true });
  const compare = (a, b) => typeof a === "number" ? (a === b ? 0 : a < b ? -1 : 1) : names.compare(a, b);
  const headers = Array.from(table.tHead.rows[0].cells);
  headers.forEach((header, column) => header.querySelector("button")?.addEventListener("click", (event) => {
    const down = header.getAttribute("aria-sort") === "ascending", type = event.currentTarget.dataset.type;
    for (const other of headers) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = rows.map((row, place) => [value(row, column, type), place, row]);
    keyed.sort((a, b) => (down ? -1 : 1) * compare(a[0], b[0]) || a[1] - b[1]);
    body.append(...keyed.map((entry) => entry[2]));
  }));
}

const opened = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
    target.querySelector("summary").focus();
  }
};
addEventListener("hashchange", opened);
// The browser itself would not open a kind that is in the address already, and takes the focus after its jump.
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#kind-"]');
  if (!link) return;
  event.preventDefault();
  history.pushState(null, "", link.hash);
  opened();
});
opened();
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
