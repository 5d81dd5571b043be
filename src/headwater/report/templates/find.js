"use strict";
{
  const finder = document.querySelector(".find"), box = finder.querySelector("input"), said = finder.querySelector("output");
  const plain = (element) => element.textContent.toLowerCase().replace(/\s+/g, " ");
  const queries = [...document.querySelectorAll("section.query")].map((section) => ({
    section,
    entry: document.querySelector(`.contents li[data-query="${section.id}"]`),
    text: plain(section.querySelector("h2")) + plain(section.querySelector(".asked")),
    more: section.querySelector(".more"),
    hits: [...section.querySelectorAll(".hit")].map((card) => ({ card, text: plain(card) })),
  }));
  const find = () => {
    const wanted = box.value.trim().toLowerCase().replace(/\s+/g, " ");
    let rows = 0, kept = 0, all = 0;
    for (const query of queries) {
      const asked = query.text.includes(wanted);
      let found = 0;
      for (const hit of query.hits) {
        const match = hit.text.includes(wanted);
        hit.card.hidden = !match && !asked;
        found += match;
      }
      const seen = asked || found > 0;
      query.section.hidden = !seen;
      if (query.entry) query.entry.hidden = !seen;
      if (query.more) query.more.open = wanted !== "" && query.hits.some((hit) => hit.text.includes(wanted) && query.more.contains(hit.card));
      rows += found;
      kept += seen;
      all += query.hits.length;
    }
    said.textContent = wanted ? `${rows} of ${all} rows, ${kept} of ${queries.length} queries` : "";
  };
  let waiting = 0;
  box.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(find, 120); });
  finder.hidden = false;
  const value = document.querySelector(".value");
  document.addEventListener("click", (event) => {
    const token = event.target.closest(".text span[title], td[title]");
    value.textContent = token ? `${token.textContent.trim()}  ${token.title}` : "";
  });
  if (box.value) find();
}
