// From text to token ids and back.

import { fetchJson } from "./student.js";

/** The tokenizer that the student was trained with; throws if this page would encode differently. */
export async function loadTokenizer() {
  const { kind, special_ids: special, samples } = await fetchJson("tokenizer_in_browser.json");
  const tokenizer = kind === "byte" ? new ByteTokenizer(new Set(special)) : await LibraryTokenizer.load(new Set(special));
  for (const { text, ids } of samples) {
    if (String(tokenizer.encode(text)) !== String(ids)) {
      throw new Error("the tokenizer of this student gives different ids in a browser: use the student in Python");
    }
  }
  return tokenizer;
}

/** Ids 0 to 255 are the bytes of UTF-8. */
class ByteTokenizer {
  constructor(special) {
    this.special = special;
  }

  encode(text) {
    return [...new TextEncoder().encode(text)];
  }

  /** A function that takes the ids after `ids` one by one, and returns the text that each completes. */
  decoder(ids) {
    const utf8 = new TextDecoder();
    return (id) => (this.special.has(id) || id > 255 ? "" : utf8.decode(Uint8Array.of(id), { stream: true }));
  }
}

/** Any other tokenizer.json, with Hugging Face's own library. */
class LibraryTokenizer {
  static async load(special) {
    const { Tokenizer } = await import("./vendor/tokenizers.min.mjs");
    const files = await Promise.all([fetchJson("tokenizer.json"), fetchJson("tokenizer_config.json")]);
    return new LibraryTokenizer(new Tokenizer(...files), special);
  }

  constructor(tokenizer, special) {
    this.tokenizer = tokenizer;
    this.special = special;
  }

  encode(text) {
    return this.tokenizer.encode(text, { add_special_tokens: false }).ids;
  }

  decoder(ids) {
    // Each token is decoded with a few before it: at the beginning of a text, some tokenizers drop a space.
    const options = { skip_special_tokens: true, clean_up_tokenization_spaces: false };
    let recent = ids.slice(-8);
    let told = recent.length ? this.tokenizer.decode(recent, options) : "";
    return (id) => {
      if (this.special.has(id)) return "";
      recent.push(id);
      const text = this.tokenizer.decode(recent, options);
      if (text.endsWith("\ufffd") && recent.length < 64) return ""; // the first bytes of a character
      const piece = text.slice(told.length);
      if (recent.length >= 64) recent = recent.slice(-8);
      told = recent.length > 8 ? text : this.tokenizer.decode(recent, options);
      return piece;
    };
  }
}
