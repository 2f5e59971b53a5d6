import { html } from "hono/html";

import style from "./style.css";
import { quantities } from "./units";

interface View {
  value?: string;
  from: string;
  to: string;
  result?: number;
  error?: string;
}

/** The page. What html`…` puts in is escaped, so that nobody's query becomes markup. */
export function page({ value = "1", from, to, result, error }: View) {
  const options = (chosen: string) =>
    Object.entries(quantities).map(
      ([quantity, units]) => html`<optgroup label="${quantity}">
        ${Object.keys(units).map((unit) => html`<option ${unit === chosen ? "selected" : ""}>${unit}</option>`)}
      </optgroup>`,
    );
  return html`<!doctype html>
<html lang="en">
  <title>Units</title>
  <style>${style}</style>
  <h1>Units</h1>
  <form>
    <input name="value" value="${value}" inputmode="decimal" aria-label="value">
    <select name="from" aria-label="from">${options(from)}</select>
    to
    <select name="to" aria-label="to">${options(to)}</select>
    <button>Convert</button>
  </form>
  ${result === undefined ? "" : html`<output>${value} ${from} = ${result} ${to}</output>`}
  ${error === undefined ? "" : html`<p role="alert">${error}</p>`}
</html>
`;
}
