"""Everything that makes `models/support-tiny`: phrases, dialogues, tokenizer, training and the held-out report."""
