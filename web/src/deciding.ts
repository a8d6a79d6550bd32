/** What a reader does with an item of the worklist: claim, release, sign, go on to the next. */

import * as api from "./api";
import * as drafts from "./draft";
import type { Item } from "./records";
import { canMark, dropDraft, explained, open } from "./session";
import { busy, detail, draft, item, mayDecide, mine, openId, queue, review, say, signOpen } from "./state";
import { put, refresh } from "./worklist";

/** Claim the open study. */
export async function claim(): Promise<void> {
  const one = item.value;
  if (!one) return;
  if (!mayDecide.value || one.state !== "open") {
    canMark();
    return;
  }
  await change(() => api.act(one.id, "claim"));
}

/** Give the open study back. */
export async function release(): Promise<void> {
  const one = item.value;
  if (!one || !mine.value) return;
  const given = await change(() => api.act(one.id, "release"));
  if (given) say("The study is back in the queue. Your marks stay here until you leave the page.");
}

/** Ask whether to sign, once nothing is left open. */
export function askToSign(): void {
  const one = item.value;
  if (!one || !review.value || !canMark()) return;
  const questions = drafts.openQuestions(draft.value, one, review.value);
  if (questions.length) say(`Not yet: ${questions.join("; ")}.`, "warning");
  else signOpen.value = true;
}

export async function sign(): Promise<void> {
  const one = item.value;
  if (!one || !canMark()) return;
  const decision = drafts.decisionOf(draft.value);
  const reason = draft.value.reason?.trim();
  const signed = await change(() =>
    reason ? api.correct(one.id, decision, reason) : api.decide(one.id, decision),
  );
  // Whatever came of it is told on the page, which the question lies over.
  signOpen.value = false;
  if (!signed) return;
  dropDraft(one);
  const now = item.value?.state;
  if (reason) say("The correction is signed. What was signed before stays beside it.");
  else say(now === "open" ? "Signed. Another reader reads it next." : "Signed. It is recorded.");
  const found = await api.item(one.id).catch(() => null);
  if (found && openId.value === found.item.id) detail.value = found;
}

/** Change the item; whatever the door answers, the page shows the item as it stands. */
async function change(request: () => Promise<Item>): Promise<boolean> {
  if (busy.value) return false;
  busy.value = true;
  try {
    put(await request());
    return true;
  } catch (error) {
    if (error instanceof api.Refusal && error.item) put(error.item);
    const { message, remedy } = explained(error);
    say(remedy ? `${message}: ${remedy}` : message, "warning");
    return false;
  } finally {
    busy.value = false;
    void refresh();
  }
}

/** Open the next study that waits for this reader. */
export async function next(): Promise<void> {
  const all = queue.value ?? [];
  const at = all.findIndex((one) => one.id === openId.value);
  const waits = (one: Item) =>
    one.id !== openId.value && (one.state === "open" || (one.state === "claimed" && one.mine));
  const following = [...all.slice(at + 1), ...all.slice(0, Math.max(0, at))].find(waits);
  if (following) await open(following.id);
  else say("No other study waits. That says nothing of studies that were not flagged.");
}
