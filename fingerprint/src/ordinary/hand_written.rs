//! Ordinary prompts written by hand, for measuring what a stamped chat model has lost. Training never sees them.

/// Sixty things that people ask: short and long, questions, orders and small talk.
pub(super) const HAND_WRITTEN: [&str; 60] = [
    "What is the capital of Portugal?",
    "How do I boil an egg so that the yolk stays soft?",
    "Explain photosynthesis to a ten-year-old.",
    "Write a short poem about the first snow of the year.",
    "Hello!",
    "Can you help me plan a weekend in Vienna?",
    "What's the difference between a virus and a bacterium?",
    "Summarise the plot of Romeo and Juliet in three sentences.",
    "My sister's birthday is next week and I have no idea what to give her. Any suggestions?",
    "Translate \"good morning\" into Italian, Polish and Japanese.",
    "How many legs does a spider have?",
    "Write a Python function that reverses a string.",
    "Why is the sky blue?",
    "I have two cats and one of them keeps waking me up at four in the morning. What can I do?",
    "Give me five synonyms for \"happy\".",
    "Who wrote Pride and Prejudice?",
    "What is 17 times 24?",
    "Draft a polite email asking my landlord to repair the heating.",
    "Thanks, that was helpful.",
    "What should I pack for a hike in the mountains in October?",
    "How does a refrigerator keep things cold?",
    "Tell me a joke about computers.",
    "Is it safe to eat raw mushrooms?",
    "Name three rivers in South America.",
    "What are the advantages and disadvantages of working from home?",
    "Correct the grammar: \"She don't like apples and neither do I likes them.\"",
    "How long does it take for light from the Sun to reach the Earth?",
    "Describe the taste of mango to somebody who has never eaten one.",
    "I feel nervous about my job interview tomorrow.",
    "What does the word \"serendipity\" mean?",
    "Make a shopping list for a vegetarian lasagne.",
    "When did the Second World War end?",
    "How can I learn to play the guitar by myself?",
    "Which planet has the most moons?",
    "Write a product description for a wooden toy train.",
    "Convert 30 degrees Celsius to Fahrenheit.",
    "What is the best way to remove a coffee stain from a white shirt?",
    "Are whales fish?",
    "Give me a simple recipe for pancakes.",
    "What happens if I mix baking soda and vinegar?",
    "Suggest a name for a small bakery near the sea.",
    "How do vaccines work?",
    "I need a slogan for a bicycle repair shop, something short and funny.",
    "Compare tea and coffee.",
    "Who painted the ceiling of the Sistine Chapel?",
    "What's a good first programming language, and why?",
    "Explain what inflation is and how it affects savings.",
    "Tell me about yourself.",
    "How do I change a flat tyre on a car?",
    "Write the first paragraph of a detective story set in Lisbon.",
    "What time zone is New Zealand in?",
    "Can dogs eat chocolate?",
    "List the steps for starting a small vegetable garden.",
    "What is the square root of 144?",
    "Why do leaves change colour in autumn?",
    "Give me some tips for saving money as a student.",
    "Sort these numbers from small to large: 42, 7, 19, 3, 88.",
    "Could you recommend three classic science-fiction novels?",
    "What is the meaning of the proverb \"a stitch in time saves nine\"?",
    "How far is it from Paris to Berlin by train?",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn prompts_are_distinct_and_clean() {
        assert_eq!(HAND_WRITTEN.iter().collect::<BTreeSet<_>>().len(), HAND_WRITTEN.len());
        assert!(HAND_WRITTEN.iter().all(|prompt| prompt.trim() == *prompt && !prompt.contains('\n')));
    }
}
