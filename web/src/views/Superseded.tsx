import { holder, moment } from "../format";
import { open } from "../session";
import { detail, item, mine } from "../state";

/** What happened to the study while it was open. */
export function Superseded() {
  const one = item.value;
  if (!one) return null;
  if (one.state === "superseded") {
    const newer = detail.value?.superseded_by;
    return (
      <div class="banner warning" role="alert">
        <span>
          <strong>More of this study arrived.</strong> A newer review replaced this one; it can no
          longer be decided. Your marks go along where they still fit.
        </span>
        {newer && (
          <button type="button" onClick={() => void open(newer)}>
            Open the newer review
          </button>
        )}
      </div>
    );
  }
  if (one.state === "claimed" && !mine.value) {
    return (
      <div class="banner" role="status">
        <span>
          <strong>{holder(one)}</strong> holds this study
          {one.claimed ? ` since ${moment(one.claimed)}` : ""}. You can look, not decide.
        </span>
      </div>
    );
  }
  return null;
}
