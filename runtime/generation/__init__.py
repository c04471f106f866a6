"""Texts that a decoder continues, token by token, many at once.

In the order in which a prompt meets them:

    options       how a text is continued: its length, sampling, what ends it
    token_rules   which tokens may follow: bad words, repeated n-grams, the least length
    flags         the flags of the command line
    __main__      the command line
    text          texts as ids, and back
    chat_template chats as texts
    media         images and sounds that stand before a text
    media_images  images of any grids among these
    prompts       prompts and the options of a call, checked
    generate      `Pipeline.generate`: prompts -> what `model.generate` returns, or a stream of steps
    continuation  the continuation of one prompt, as it comes
    generator     the thread that sends batches to the stages and hands out what they return
    outputs       outputs of a step that a device may still compute, and their way to the host and the next step
    stages        the stages, as the thread that continues texts sees them
    scheduling/   the choice of texts for the next batch, their pages, and its tensors
"""
