// Tables sort by a click on the title of a column; unknown cells stay last. Without this script they are as written.
"use strict";

function sort(table, title) {
  const column = title.cellIndex;
  const numeric = title.classList.contains("number");
  const descending = title.getAttribute("aria-sort") === "ascending";
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => {
    const text = row.cells[column].textContent;
    const value = numeric ? parseFloat(text) : text;
    return { row, value, unknown: numeric ? Number.isNaN(value) : text === "-" };
  });
  rows.sort((a, b) => {
    if (a.unknown || b.unknown) return a.unknown - b.unknown;
    const order = numeric ? a.value - b.value : a.value.localeCompare(b.value, "en", { numeric: true });
    return descending ? -order : order;
  });
  body.append(...rows.map(({ row }) => row));
  for (const other of title.parentNode.cells) other.removeAttribute("aria-sort");
  title.setAttribute("aria-sort", descending ? "descending" : "ascending");
}

for (const table of document.querySelectorAll("table")) {
  for (const title of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...title.childNodes);
    button.addEventListener("click", () => sort(table, title));
    title.append(button);
  }
}
