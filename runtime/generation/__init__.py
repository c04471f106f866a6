"""Texts that a decoder continues, token by token, many at once.

In the order in which a prompt meets them:

    options       how a text is continued: its length, sampling, what ends it
    token_rules   which tokens may follow: bad words, repeated n-grams, the least length
    flags         the flags of the command line
    __main__      the command line
    prompts/      texts, chats and images -> ids, and the text of ids
    generate      `Pipeline.generate`: prompts -> what `model.generate` returns, or a stream of steps
    continuation  the continuation of one prompt, as it comes
    generator     the thread that sends batches to the stages and hands out what they return
    outputs       outputs of a step that a device may still compute, and their way to the host and the next step
    stages        the stages, as the thread that continues texts sees them
    scheduling/   the choice of texts for the next batch, their pages, and its tensors
"""
