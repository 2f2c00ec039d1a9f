parser {}
