import { openQuestions, required, verdictOf } from "../draft";
import { count, holder, moment, sentence, since, span } from "../format";
import { correct, dropDraft } from "../session";
import { askToSign, claim, next, release } from "../deciding";
import {
  busy,
  correcting,
  detail,
  draft,
  item,
  marking,
  mayDecide,
  mine,
  openId,
  ownLanes,
  review,
  serverNow,
  trouble,
} from "../state";
import { Coverage } from "./Coverage";
import { Findings } from "./Findings";
import { Integrity } from "./Integrity";
import { Readings } from "./Readings";

export function Decision() {
  const one = item.value;
  const of = review.value;
  if (!one || !of) {
    return (
      <aside class="decision" aria-label="Decision">
        {openId.value && !trouble.value && <p class="aside" aria-busy="true">Loading the review …</p>}
        {!openId.value && <NoFlag />}
      </aside>
    );
  }
  return (
    <aside class="decision" aria-label="Decision">
      <div class="scroll">
        <Head />
        <Coverage coverage={of.coverage} />
        {one.lane === "forensic" && <Integrity issues={of.integrity} />}
        <Findings />
        {one.lane === "clinical" && of.integrity.length > 0 && <Integrity issues={of.integrity} />}
        {marking.value && required(one, of).length === 0 && <Overall />}
        {correcting.value && <Reason />}
        {marking.value && <Comment />}
        <Readings detail={detail.value} />
        <Footer />
      </div>
      <Actions />
    </aside>
  );
}

function NoFlag() {
  return (
    <p class="noflag">
      <strong>No flag is not normal.</strong> Studies that are not in the queue were not cleared.
    </p>
  );
}

function Head() {
  const one = item.value;
  if (!one) return null;
  return (
    <header class="study-head">
      <p class="eyebrow">
        {one.lane} lane · priority {one.urgency}
        {one.generation > 1 && ` · review ${one.generation}`}
      </p>
      <h2>{sentence(one.summary)}</h2>
      <p class="dim">
        flagged {span(since(one.created, serverNow.value))} ago by{" "}
        {one.rules.map((rule) => rule.replaceAll("-", " ")).join(", ")}
      </p>
      {(one.readers_needed ?? 1) > 1 && (
        <p class="dim">
          {one.stage === "adjudication"
            ? "The readings differ: this one decides."
            : `Reading ${Math.min((one.readings ?? 0) + 1, one.readers_needed ?? 1)} of ${one.readers_needed}; each is made without sight of the other.`}
        </p>
      )}
    </header>
  );
}

const OVERALL = [
  ["confirmed", "Confirm"],
  ["rejected", "Reject"],
] as const;

function Overall() {
  return (
    <section aria-label="Verdict on the study">
      <h3>Verdict on the study</h3>
      <div class="verdicts wide" role="group" aria-label="Verdict on the study">
        {OVERALL.map(([verdict, text]) => (
          <button
            type="button"
            key={verdict}
            class={verdict}
            aria-pressed={draft.value.overall === verdict}
            onClick={() => {
              const overall = draft.value.overall === verdict ? null : verdict;
              draft.value = { ...draft.value, overall };
            }}
          >
            {text}
          </button>
        ))}
      </div>
    </section>
  );
}

/** The server's bound. */
export const MOST_CHARACTERS = 4000;

function Reason() {
  return (
    <section>
      <h3>
        <label for="reason">Why it is corrected</label>
      </h3>
      <textarea
        id="reason"
        rows={2}
        maxLength={MOST_CHARACTERS}
        value={draft.value.reason ?? ""}
        onInput={(event) => {
          draft.value = { ...draft.value, reason: event.currentTarget.value };
        }}
      />
    </section>
  );
}

function Comment() {
  return (
    <section>
      <h3>
        <label for="comment">Comment</label>
      </h3>
      <textarea
        id="comment"
        rows={2}
        maxLength={MOST_CHARACTERS}
        value={draft.value.comment}
        placeholder="Optional (M)"
        onInput={(event) => {
          draft.value = { ...draft.value, comment: event.currentTarget.value };
        }}
      />
    </section>
  );
}

function Footer() {
  const of = review.value;
  if (!of) return null;
  return (
    <footer class="fine">
      <NoFlag />
      <p>
        Screened by{" "}
        {of.models.map((one) => `${one.name} ${one.version}`).join(", ") || "no model"}; policy{" "}
        {of.policy_name}. {sentence(of.disclaimer)}.
      </p>
    </footer>
  );
}

function Actions() {
  const one = item.value;
  const of = review.value;
  if (!one || !of) return null;
  if (correcting.value) return <Correcting />;
  if (one.state === "decided" || one.state === "superseded") {
    return (
      <div class="actions">
        <p class="standing">{standing()}</p>
        {one.state === "decided" && mayDecide.value && (
          <button type="button" onClick={correct}>
            Correct <kbd>K</kbd>
          </button>
        )}
        <button type="button" class="primary" onClick={() => void next()}>
          Next study <kbd>X</kbd>
        </button>
      </div>
    );
  }
  if (!mayDecide.value) {
    return (
      <div class="actions">
        <p class="standing">
          You can look. Deciding in the {one.lane} lane takes the role {one.lane}-reviewer
          {ownLanes.value.length ? `; yours: ${ownLanes.value.join(", ")}` : ""}.
        </p>
        <NextButton />
      </div>
    );
  }
  if (!mine.value) {
    return (
      <div class="actions">
        {one.state === "claimed" ? (
          <p class="standing">{standing()}</p>
        ) : (
          <button type="button" class="primary" disabled={busy.value} onClick={() => void claim()}>
            Claim <kbd>T</kbd>
          </button>
        )}
        <NextButton />
      </div>
    );
  }
  const questions = openQuestions(draft.value, one, of);
  return (
    <div class="actions">
      {questions.length > 0 && <p class="standing">{questions.join("; ")}</p>}
      <button
        type="button"
        class="primary"
        disabled={busy.value || questions.length > 0}
        onClick={askToSign}
      >
        {questions.length ? "Sign off" : `Sign off: ${verdictOf(draft.value)}`} <kbd>S</kbd>
      </button>
      <button type="button" disabled={busy.value} onClick={() => void release()}>
        Release <kbd>L</kbd>
      </button>
      <NextButton />
    </div>
  );
}

function Correcting() {
  const one = item.value;
  const of = review.value;
  if (!one || !of) return null;
  const questions = openQuestions(draft.value, one, of);
  return (
    <div class="actions">
      <p class="standing">
        {questions.length > 0 ? questions.join("; ") : "The signed decision stays beside this."}
      </p>
      <button
        type="button"
        class="primary"
        disabled={busy.value || questions.length > 0}
        onClick={askToSign}
      >
        Sign the correction <kbd>S</kbd>
      </button>
      <button type="button" disabled={busy.value} onClick={() => dropDraft(one)}>
        Discard
      </button>
    </div>
  );
}

function NextButton() {
  return (
    <button type="button" onClick={() => void next()}>
      Next <kbd>X</kbd>
    </button>
  );
}

function standing(): string {
  const one = item.value;
  if (one?.state === "claimed") return `Held by ${holder(one)}.`;
  if (one?.state === "superseded") return "A newer review took its place.";
  const when = one?.decided ? ` at ${moment(one.decided)}` : "";
  const corrections = detail.value?.corrections?.length ?? 0;
  const more = corrections ? `, ${count(corrections, "correction")}` : "";
  return `${one?.decision?.verdict ?? "decided"} by ${holder(one)}${when}${more}.`;
}
