"""Loaders, one per data set; all take what installed packages bring, none opens a connection.

- `pronunciations`: English words and their phonemes (CMU Pronouncing Dictionary).
- `alignment`: which letter of a word makes which phonemes, by expectation-maximisation.
- `grammar`: sentences of ambiguous words with exact tags and trees; written here, not read.
- `vowels`: spoken Japanese vowels as sequences of cepstral frames, by nine speakers.
- `digits`: handwritten digits of 8 x 8 pixels.
- `karate`: a social network of 34 people that split into two clubs.
- `news`: 300 short English news documents.
- `reports`: short reports and their summaries, made up, with surnames from `news`.
- `number_words`: numbers in English, German and French words, made by rules, not read.
- `curves`: what long runs of `experiments/` measured, with how they were made.
- `reviews`: 200 snippets of movie reviews, favourable or not.

Import the one you need: `from transformer_lit.data import pronunciations`.
"""
