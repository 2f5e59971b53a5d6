raise ValueError('at load')
