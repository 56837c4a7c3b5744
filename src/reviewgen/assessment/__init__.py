"""``reviewgen report``: how good generated texts are, and what they give away, beside the same
figures of real texts.

    texts       reads and samples the tables
    figures     a figure, a section and what they say
    modelling   a language model of some texts
    grams       words and runs of words as numbers
    classifier  a logistic regression on hashed n-grams, which needs scikit-learn
    likeness    whether the texts can be told from real ones
    variety     whether they repeat each other
    use         what a classifier learns from them
    privacy     what of the training texts they repeat
    report      the report as JSON, as tables on a terminal and as a page
"""
