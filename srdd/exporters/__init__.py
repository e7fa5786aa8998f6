"""One file per output: `render(document, ...) -> str`. No arithmetic, no disk."""
