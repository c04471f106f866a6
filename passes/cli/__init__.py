"""The command `stagecut`.

In the order in which a command line meets them:

    main           the command and its subcommands
    flags          a flag for each field of `Options`
    handed_on      subcommands with a command line of their own: run, generate, serve, export, adapter,
                   check, measure, partition
    cut_first/     generate and serve, where the model must be cut first
    exporting      export: the weights of an artifact as a checkpoint
    adding         adapter: one more for an artifact that keeps some
    loading        imports that name the extra to install where one fails
    command        `stagecut compile` and `stagecut compare`
    terminal       progress, notes and messages on stderr; the exit status
    verify_stages  `--verify`: the stages beside the uncut model
    table          the plan as a table, and plans side by side
    browser        `--open`: the report in a browser
"""
