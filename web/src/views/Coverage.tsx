import { count } from "../format";
import type { Review, Unscreened } from "../records";
import { allSeries } from "../state";

/** What was looked at, and above all what was not. */
export function Coverage({ coverage }: { coverage: Review["coverage"] }) {
  const passed = coverage.not_screened ?? [];
  const rejected = coverage.rejected ?? [];
  const missing = coverage.missing ?? [];
  const others = passed.reduce((sum, one) => sum + (isImage(one) ? 0 : one.count), 0);
  const whole = coverage.screened === coverage.images && !rejected.length && !missing.length;
  const part = coverage.images ? coverage.screened / coverage.images : 0;
  return (
    <section class={`coverage ${whole ? "" : "gaps"}`} aria-label="Coverage">
      <h3>
        {whole ? "All images screened" : "Not all was screened"}
        <span class="figure">
          {coverage.screened.toLocaleString("en")} of {count(coverage.images, "image")}
        </span>
      </h3>
      <progress max={1} value={part} aria-hidden="true" />
      {(passed.length > 0 || rejected.length > 0 || missing.length > 0) && (
        <ul>
          {rejected.map((one) => (
            <Gap key={`r${one.series_instance_uid}${one.reason}${one.detail}`} what="rejected" one={one} />
          ))}
          {passed.filter(isImage).map((one) => (
            <Gap key={`n${one.series_instance_uid}${one.reason}${one.detail}`} what="not screened" one={one} />
          ))}
          {missing.length > 0 && (
            <li class="gap">
              <strong>{missing.length} missing</strong>
              <span>announced by the sender and never received</span>
            </li>
          )}
          {others > 0 && (
            <li>
              <strong>{others}</strong>
              <span>{others === 1 ? "object is no image" : "objects are no images"}: not looked at</span>
            </li>
          )}
        </ul>
      )}
    </section>
  );
}

function isImage(one: Unscreened): boolean {
  return one.reason !== "not an image object";
}

function Gap({ what, one }: { what: string; one: Unscreened }) {
  const series = allSeries.value.find((known) => known.uid === one.series_instance_uid);
  const name = series ? [series.modality, series.description].filter(Boolean).join(" ") : "";
  return (
    <li class="gap">
      <strong>
        {one.count} {what}
      </strong>
      <span>
        {name && `${name}: `}
        {one.reason}
        {one.detail ? ` (${one.detail})` : ""}
      </span>
    </li>
  );
}
