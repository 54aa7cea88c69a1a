"""What autograd keeps for nothing, and what would free it: one trace to look (``watch``), a table of rules, one trace for each
piece of advice to tell its bytes (``changes``).

| rule | found by | file |
|---|---|---|
| ``no-grad``, ``unused-graph``, ``create-graph`` | saves that no backward pass asks for | ``unvisited`` |
| ``detach``, ``retained-graph`` | graphs that outlive their step | ``lasting`` |
| ``requires-grad``, ``input-grad`` | gradients that nobody uses | ``trained`` |
| ``eval-mode``, ``set-to-none`` | modes of modules and calls of ``zero_grad`` | ``modes`` |
| ``copy``, ``float64`` | births, deaths, writes and kinds of storages | ``tensors`` |
"""
