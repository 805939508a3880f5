"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

  // Tables: a click on a head sorts, numbers as numbers.
  const leading = /^[\s<≤>≥~≈]*([+\-−]?[\d,]*\.?\d+(?:e[+-]?\d+)?)/i;
  const valueOf = (cell) => {
    if (!cell) return null;
    if (cell.dataset.number !== undefined) return Number(cell.dataset.number);
    const found = leading.exec(cell.textContent);
    return found ? Number(found[1].replace(/,/g, "").replace("−", "-")) : null;
  };
  const sortBy = (head) => {
    const table = head.closest("table"), body = table.tBodies[0], at = head.cellIndex;
    const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", direction);
    const rows = [...body.rows];
    const text = (row) => row.cells[at] ? row.cells[at].textContent.trim() : "";
    const empty = (row) => ["", "–"].includes(text(row));
    const asNumbers = rows.every((row) => empty(row) || valueOf(row.cells[at]) !== null);
    const sign = direction === "ascending" ? 1 : -1;
    rows.sort((one, other) => {
      if (empty(one) || empty(other)) return empty(one) - empty(other);
      if (asNumbers) return sign * (valueOf(one.cells[at]) - valueOf(other.cells[at]));
      return sign * text(one).localeCompare(text(other), "en", { numeric: true });
    });
    body.append(...rows);
  };
  all("button.sort").forEach((button) => button.addEventListener("click", () => sortBy(button.closest("th"))));

  // Tables: copy or save as CSV, Markdown or LaTeX, as ensemble/report/tables.py writes them. A cell of a confusion
  // matrix is its count.
  const shownOf = (cell) => (cell.dataset.whole || (cell.querySelector("b") || cell).textContent).trim();
  const formula = (text) => /^[=+\-@\t\r]/.test(text) && !/^[+-]?[0-9.,]+(e[+-]?[0-9]+)?%?$/i.test(text);
  const valueText = (cell) => {
    if (cell.dataset.empty !== undefined) return "";
    return cell.dataset.number === undefined ? shownOf(cell) : shownOf(cell).replace(/,/g, "");
  };
  const csv = ({ head, cells }, safe) => [head, ...cells.map((row) => row.map(valueText))].map((row) => row.map((text) => {
    const plain = safe && formula(text) ? "'" + text : text;
    return /[",\r\n]/.test(plain) ? '"' + plain.replace(/"/g, '""') + '"' : plain;
  }).join(",")).map((line) => line + "\r\n").join("");
  const markdown = ({ head, rows, right, caption, note }) => {
    const text = (plain) => plain.replace(/[\\|`*_<>\[\]~&$]|:(?=\/\/)/g, "\\$&")
      .replace(/(www)\./gi, "$1\\.").replace(/\s+/g, " ");
    const line = (row) => "| " + row.map(text).join(" | ") + " |\n";
    return text(caption) + "\n\n" + line(head) + "|" + right.map((one) => one ? " ---: |" : " --- |").join("") + "\n" +
      rows.map(line).join("") + (note ? "\n" + text(note) + "\n" : "");
  };
  const marks = {
    "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}",
    "|": "\\textbar{}", "`": "\\textasciigrave{}", "[": "{[}", "]": "{]}", "–": "--", "…": "\\ldots{}",
    "−": "$-$", "≤": "$\\leq$", "≥": "$\\geq$", "≈": "$\\approx$", "×": "$\\times$", "-": "-{}",
  };
  const tex = (text) => text.replace(/[\\~^<>|`[\]–…−≤≥≈×&%$#_{}]|-(?=-)/g, (mark) => marks[mark] || "\\" + mark);
  const latex = ({ name, head, rows, right, caption, note }) => {
    const line = (row) => "  " + row.map(tex).join(" & ") + " \\\\";
    const longest = head.map((_, at) => Math.max(0, ...rows.map((row) => [...row[at]].length)));
    const shares = longest.map((one) => one > 30 ? Math.min(one, 120) : 0), all = shares.reduce((sum, one) => sum + one, 0);
    const wide = (share) => `p{0.${String(Math.floor(65 * share / all)).padStart(2, "0")}\\linewidth}`;
    const columns = shares.map((share, at) => share ? wide(share) : right[at] ? "r" : "l").join("");
    const title = `\\caption{${tex(caption)}}`, label = `\\label{tab:${name}}`;
    const below = note ? [`\n\\smallskip\n{\\footnotesize ${tex(note)}}`] : [];
    return (rows.length > 30
      ? ["% \\usepackage{booktabs,longtable}", `\\begin{longtable}{${columns}}`, title + label + "\\\\", "\\toprule", line(head),
        "\\midrule", "\\endfirsthead", "\\toprule", line(head), "\\midrule", "\\endhead", "\\bottomrule", "\\endfoot", ...rows.map(line), "\\end{longtable}", ...below]
      : ["% \\usepackage{booktabs}", "\\begin{table}", "\\centering", title, label, `\\begin{tabular}{${columns}}`, "\\toprule",
        line(head), "\\midrule", ...rows.map(line), "\\bottomrule", "\\end{tabular}", ...below, "\\end{table}"]
    ).join("\n") + "\n";
  };
  const written = (block, format) => {
    const table = block.querySelector("table"), note = block.querySelector("figcaption .note");
    const [top, ...lines] = [...table.rows], cells = lines.map((row) => [...row.cells]);
    const made = {
      name: block.id, cells, rows: cells.map((row) => row.map(shownOf)), head: [...top.cells].map(shownOf),
      right: [...top.cells].map((cell) => cell.classList.contains("number")),
      caption: table.caption.firstElementChild.textContent.trim(), note: note ? note.textContent.trim() : "",
    };
    if (format === "md") return markdown(made);
    if (format === "tex") return latex(made);
    return csv(made, block.querySelector(".safe").checked);
  };
  const copied = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  };
  const kinds = { csv: "text/csv", md: "text/markdown", tex: "application/x-tex" };
  all(".take").forEach((take) => {
    const block = take.closest(".block"), format = take.querySelector(".format"), said = take.querySelector(".said");
    format.addEventListener("change", () => { take.querySelector(".neutral").hidden = format.value !== "csv"; });
    take.querySelector(".copy").addEventListener("click", async () => {
      said.textContent = await copied(written(block, format.value)) ? "copied" : "the browser does not allow to copy: save it";
    });
    take.querySelector(".save").addEventListener("click", () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([written(block, format.value)], { type: kinds[format.value] + ";charset=utf-8" }));
      link.download = `${block.id}.${format.value}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      said.textContent = `saved as ${link.download}`;
    });
  });

  // Galleries: only the pictures with the chosen tags; a cell of a confusion matrix chooses two tags.
  const shows = new Map();
  all(".gallery").forEach((gallery) => {
    const pictures = all("li", gallery).map((item) => [item, JSON.parse(item.dataset.tags)]);
    const selects = all("select", gallery), said = gallery.querySelector(".said");
    const show = (wanted) => {
      let count = 0;
      for (const [item, tags] of pictures) {
        const fits = Object.entries(wanted).every(([tag, value]) => tags[tag] === value);
        item.hidden = !fits;
        count += fits;
      }
      const named = Object.entries(wanted).map(([tag, value]) => `${tag} ${value.slice(0, 60)}`).join(", ");
      said.textContent = (count === pictures.length ? "" : `${count.toLocaleString("en")} of `) +
        `${pictures.length.toLocaleString("en")} pictures` + (named ? `: ${named}` : "") +
        (count ? "" : ". No picture of these is in this selection.");
    };
    const chosen = () => Object.fromEntries(selects.filter((one) => one.value).map((one) => [one.dataset.tag, one.value.slice(1)]));
    selects.forEach((one) => one.addEventListener("change", () => show(chosen())));
    gallery.querySelector(".all").addEventListener("click", () => {
      selects.forEach((one) => { one.value = ""; });
      show({});
    });
    shows.set(gallery.id, (wanted) => {
      for (const one of selects) {
        const value = wanted[one.dataset.tag];
        one.value = value === undefined ? "" : "=" + value;
        if (one.selectedIndex < 0) one.value = "";
      }
      show(wanted);
      gallery.scrollIntoView({ block: "start" });
      gallery.focus({ preventScroll: true });
    });
  });
  all("button.cell").forEach((cell) => cell.addEventListener("click", () => {
    const open = shows.get(cell.dataset.opens);
    if (open) open({ true: cell.dataset.true, predicted: cell.dataset.predicted });
  }));
})();
