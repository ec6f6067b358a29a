"""The search: `fit`, its options, its folder, and the strategies that propose candidates."""
