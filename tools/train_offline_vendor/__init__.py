"""How the offline vendor is trained: gather drawings, train, pack. See README.md."""
