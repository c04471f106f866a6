"""report.html: a plan and its runs on one page.

In the order in which a plan meets them:

    notes         what only the compiler knows: passes, sources, seconds
    parts         the operators in a box of the picture
    timeline      predicted times of each stage for a stream of microbatches
    measurement   times of a run, from its trace
    data          all that the page shows, as plain data
    page          the page: one file with its data, styles and scripts
    assets/       these: tables.js has the key figures and tables, charts.js time and memory, picture.js the graph,
                  panel.js what a box of it opens, format.js quantities, report.js all of it together
"""
