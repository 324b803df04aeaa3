"""The attack on hiplan: hostile inputs for everything that it reads. See docs/attack.md."""
